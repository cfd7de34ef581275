"""Every file of weights enters here."""
