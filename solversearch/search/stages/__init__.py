"""The stages of a search, a module each: what a stage has set by hand, and `run`, which takes what it needs and gives what it found."""
