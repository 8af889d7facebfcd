#ifndef SHAPES_H
#define SHAPES_H

#include <stddef.h>

enum shape { CIRCLE, SQUARE };

double shape_area(enum shape shape, double side);
const char *shape_name(enum shape shape);
int shape_describe(enum shape shape, double side, char *text, size_t size);

#endif
