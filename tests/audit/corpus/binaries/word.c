const char *word(void) { return WORD; }
