"""Is it true: what was promised compared with what happened, one file or package a question; `judge` asks them all."""
