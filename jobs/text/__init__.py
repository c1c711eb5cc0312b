"""What texts and JSON values mean: numbers, dates, patterns, charsets. Pure: nothing here asks anybody."""
