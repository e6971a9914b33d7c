"""The demonstration: two organizations in one database, one of them attacking the other."""
