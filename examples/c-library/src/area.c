#include "shapes.h"

/* The area of a circle with this radius, or of a square with this side. */
double shape_area(enum shape shape, double side) {
    return shape == CIRCLE ? 3.141592653589793 * side * side : side * side;
}
