"""What is kept and learnt: Optuna studies in a relational database. No training code."""
