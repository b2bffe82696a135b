"""Messages and files of any content: what a peer that is broken, or means harm, may send."""
