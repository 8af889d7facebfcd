#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "shapes.h"

int main(void) {
    char text[64];
    assert(shape_area(SQUARE, 3) == 9);
    assert(strcmp(shape_name(CIRCLE), "circle") == 0);
    shape_describe(SQUARE, 2, text, sizeof text);
    assert(strcmp(text, "a square of area 4.0") == 0);
    puts("3 checks passed");
    return 0;
}
