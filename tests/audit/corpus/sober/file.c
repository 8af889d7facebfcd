const char *place(void) { return "failed in " __FILE__; }
