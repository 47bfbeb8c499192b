"""Wallets in the place of accounts: names, texts to sign, signatures, keystores. No networks here."""
