int leaf(int n) { return n * 7; }
