/* data/manifest.json is what the cases give, byte for byte, and every invalid case is refused in its own words. */
#include <stdlib.h>
#include <string.h>

#include "tests/suite.h"
#include "verify/verify.h"

enum {
    MOST = 1 << 22
};

START_TEST(regenerates)
{
    char committed[4096], fresh[512];
    lh_error error;
    const char *folder = scratch_folder();
    char *a = malloc(MOST), *b = malloc(MOST);
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_nonnull(b);
    snprintf(committed, sizeof committed, "%s/manifest.json", verify_data_folder());
    snprintf(fresh, sizeof fresh, "%s/manifest.json", folder);
    expect_status(verify_write_manifest(fresh, &error), LH_OK, &error, "");
    const size_t size = read_bytes(committed, a, MOST), again = read_bytes(fresh, b, MOST);
    ck_assert_uint_lt(size, MOST);
    size_t same = 0;
    while (same < size && same < again && a[same] == b[same])
        same++;
    ck_assert_msg(
        size == again && same == size,
        "the manifest differs at byte %zu: run lighthouse verify --manifest data/manifest.json if that "
        "is meant",
        same);
    remove_folder(folder);
    free(a);
    free(b);
}
END_TEST

START_TEST(invalid_cases_are_refused)
{
    const verify_invalid *c = verify_invalid_at(_i);
    lh_error error = {.text = ""};
    ck_assert_msg(c->why[0] != '\0', "%s does not say why", c->id);
    ck_assert_msg(verify_invalid_try(c, &error) == LH_INVALID, "%s was taken", c->id);
    ck_assert_msg(strcmp(error.text, c->error) == 0, "%s: the error is \"%s\", wanted \"%s\"", c->id,
                  error.text, c->error);
}
END_TEST

START_TEST(ids_are_unique)
{
    const verify_case *a, *b;
    for (int i = 0; (a = verify_case_at(i)); i++) {
        ck_assert_msg(a->why[0] && a->exposes[0], "%s says neither why nor what", a->id);
        for (int j = 0; j < i; j++) {
            b = verify_case_at(j);
            ck_assert_str_ne(a->id, b->id);
            ck_assert_msg(a->seed != b->seed || a->seed == 0, "%s and %s share a seed", a->id, b->id);
        }
    }
}
END_TEST

int main(void)
{
    int invalid = 0;
    while (verify_invalid_at(invalid))
        invalid++;
    Suite *suite = suite_create("manifest");
    TCase *tests = suite_case(suite, "manifest");
    tcase_add_test(tests, regenerates);
    tcase_add_loop_test(tests, invalid_cases_are_refused, 0, invalid);
    tcase_add_test(tests, ids_are_unique);
    return suite_run(suite);
}
