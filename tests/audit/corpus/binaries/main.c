int leaf(int n);

int main(void) { return leaf(6) != 42; }
