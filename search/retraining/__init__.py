"""What becomes of one configuration: exported, trained for keeps, verified, and put to use."""
