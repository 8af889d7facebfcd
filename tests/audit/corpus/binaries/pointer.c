#include <stdio.h>

struct node {
    char name[8];
    struct node *next;
};

int main(void) {
    static struct node last = {"last", 0};
    struct node first = {"first", &last};
    return fwrite(&first, sizeof first, 1, stdout) != 1;
}
