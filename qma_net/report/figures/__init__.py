"""The paper's figures, one file to a kind."""
