#include <stdio.h>

#include "shapes.h"

/* One line about a shape; returns its length as snprintf does. */
int shape_describe(enum shape shape, double side, char *text, size_t size) {
    return snprintf(text, size, "a %s of area %.1f", shape_name(shape), shape_area(shape, side));
}
