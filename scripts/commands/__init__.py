"""The commands of `nearfetch`, one file each."""
