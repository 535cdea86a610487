"""optuna-dashboard on a storage of studies, guarded, and with notes, pictures and figures for our studies."""
