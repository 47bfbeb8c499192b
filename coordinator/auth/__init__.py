"""Who is calling, and what they may do: challenges, sign-ins, contract wallets, permissions, limits."""
