# raises a terminal's commands, Markdown and HTML
raise ValueError(
    "\x1b[2J\x1b]0;owned\x07\n\n# All passed\n\n<img src=x onerror=alert(1)> =1+1 | | |"
)
