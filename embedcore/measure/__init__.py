"""One case in, one result out, inline or in a child process. Knows nothing of pytest."""
