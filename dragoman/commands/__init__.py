"""The commands whose options are many: a file each, options in, one call out."""
