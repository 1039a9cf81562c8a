"""Who somebody is: tokens, the identities they stand for, and what identities are shown with."""
