/*
 * Every gradient of ref/ against central differences of sum(dout * out), the index held fixed (SPEC 7).
 *
 * With step h the difference is off by about h^2, and by 2^-REAL_DIGITS / h for rounding: h = 2^(-REAL_DIGITS/3)
 * makes the two alike. In the 113-bit build that checks a gradient to some 20 digits.
 */
#include <string.h>

#include "ref/ref.h"
#include "tests/sample.h"
#include "tests/suite.h"

static const struct {
    struct ref_shape shape;
    enum fill fill;
} cases[] = {
    {{1, 2, 2, 16, 2, 3, 2, 4, 2}, GAUSSIAN}, {{1, 4, 2, 18, 2, 3, 3, 2, 2}, GAUSSIAN},
    {{1, 2, 1, 16, 1, 4, 2, 2, 2}, GAUSSIAN}, {{1, 2, 1, 9, 4, 1, 2, 0, 0}, GAUSSIAN},
    {{1, 1, 1, 32, 2, 2, 4, 4, 2}, TIES},
};
enum {
    CASES = sizeof cases / sizeof *cases
};

static real loss(const struct sample *layer)
{
    const struct ref_shape *s = &layer->shape;
    real sum = 0;
    ref_layer_pool(s, &layer->trace);
    ref_layer_gather(s, &layer->trace);
    ref_layer_attend(s, &layer->trace);
    ref_layer_scatter(s, &layer->trace);
    for (int64_t i = 0; i < s->batch * s->heads * s->tokens * s->dim; i++)
        sum += layer->trace.dout[i] * layer->trace.out[i];
    return sum;
}

START_TEST(central_differences)
{
    struct sample layer = sample_new(&cases[_i].shape);
    uint64_t state = 42;
    sample_fill(&layer, cases[_i].fill, &state);
    ref_forward(&layer.shape, &layer.trace);
    ref_backward(&layer.shape, &layer.trace);
    real h = 1;
    for (int i = 0; i < REAL_DIGITS / 3; i++)
        h /= 2;
    const real *gradients[] = {layer.trace.dq, layer.trace.dk, layer.trace.dv};
    for (int input = 0; input < 3; input++)
        for (int64_t i = 0; i < layer.tensor[input].elements; i++) {
            real *x = &layer.tensor[input].values[i];
            const real here = *x;
            *x = here + h;
            const real above = loss(&layer);
            *x = here - h;
            const real below = loss(&layer);
            *x = here;
            const real found = gradients[input][i], wanted = (above - below) / (2 * h);
            const real difference = found > wanted ? found - wanted : wanted - found;
            ck_assert_msg(difference <= 128 * h * h, "d%s[%d] is %.17g, wanted %.17g",
                          layer.tensor[input].name, (int)i, (double)found, (double)wanted);
        }
    sample_free(&layer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ref gradients");
    TCase *tcase = suite_case(suite, "gradients");
    tcase_add_loop_test(tcase, central_differences, 0, CASES);
    return suite_run(suite);
}
