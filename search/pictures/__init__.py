"""PNG pictures of trained networks, by matplotlib's objects alone: no window, no state between pictures.

They take arrays and names and know nothing of training. Text that comes from users is drawn as it is.
"""
