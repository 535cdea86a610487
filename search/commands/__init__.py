"""The commands, a file for each family: parse, call, print; nothing else.

Nothing heavy is imported until a command needs it, so that help and the list of spaces come at once.
"""
