/* `lighthouse explain`: what it says against the worked example, and what it derives against the reference's index. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "explain/explain.h"
#include "tests/program.h"
#include "tests/small_layer.h"
#include "tests/suite.h"

/* Runs `lighthouse WORDS` and insists on each of `parts`, separated by '|'. */
static void expect_output(const char *words, const char *parts)
{
    program_result result;
    char copy[1024];
    program_run(&result, words);
    ck_assert_msg(result.status == 0, "lighthouse %s: exit status %d: %s", words, result.status, result.err);
    ck_assert_str_eq(result.err, "");
    snprintf(copy, sizeof copy, "%s", parts);
    for (char *part = strtok(copy, "|"); part; part = strtok(NULL, "|"))
        ck_assert_msg(strstr(result.out, part), "lighthouse %s: wanted '%s' in:\n%s", words, part,
                      result.out);
}

/* Against docs/algorithm.md, whose numbers tests/test_ref_hand.c holds. */
START_TEST(worked_example)
{
    expect_output(
        "explain",
        "P = 21 pyramid entries, S = 11|score_q level 2: 0.693 1.386 2.079|score_k level 2: 1 3 2|"
        "level 2: by query 20 (2.079); then by key 19 (3); leaves 18\n|"
        "level 1: by query 17 (2.079); then by key 15 (3); leaves 14 16\n|"
        "[18 leaf               ][19 parent by key      ][20 parent by query    ]|"
        "    5    19 4-7     K             ===========*\n|"
        "     4    15    8   4  67   4  17   x|2.583     2.485|"
        "    5    19 4-7                   =========###>>>>>>>>>\n|coverage   0 0 0 1 1 2 3 3 2 2 3 3\n|"
        "out        0 0 0 2 2 4.667 6.772 7.576 5.276 6.407 8.357 7.047\n|"
        "Positions 0 to 2 receive nothing and are exactly zero|"
        "do_sel     2 -1 -2 2 2 5 3 2 -1 -1 -1\n|dq         0 0 0 0 -1.346 -1.346 -1.969 -4.68 -1.317");
}
END_TEST

START_TEST(stories)
{
    expect_output("explain --token 6",
                  "Token 6: score_q 0.693, score_k 3|entry 15, level 1, tokens 6-7: opened by its "
                  "key score|level 1: entry 14, tokens 4-5: received|hears from 3 slots, no token "
                  "after 6|1.772  slot 0, entry 18, tokens 0-3 only as a mean|0.842  slot 2");
    expect_output("explain --token 2", "none ends by then|It hears from nobody: its output is exactly zero.");
    expect_output("explain --why 14",
                  "Selected, slot 1; not opened|By query its score is 1.386 (token 4's): place 2 of 4|"
                  "By key its score is 2 (token 5's): place 2 of 3|a key of norm over 3 among");
    expect_output("explain --why 0",
                  "Not selected: never a candidate|The window above it, 18 of level 2, was not opened");
    expect_output("explain --why 20", "opened, by its query score|all of which are candidates");
    expect_output("explain --why 6 --token 6", "a token has nothing to open|positions hear it");
    expect_output(
        "explain --gradient 7 --step=backward",
        "Entries that wrote there: 7 (slot 3) 15 (slot 4) 19 (slot 5)|do_sel     0 0 0 1 1 1 0 0 0 0 0\n|"
        "dv         0.065 0.065 0.065 0.065 0.084 0.084 2.262 0.31 0 0 0 0\n");
}
END_TEST

/* SPEC 3.7, 9: what the rules are there for, and what causality does not cover. */
START_TEST(leaks)
{
    expect_output("explain --leak 7",
                  "  as it is meant        .  .  .  .  .  .  .  +  +  +  +  +   0 before\n|"
                  "  without the shift     .  .  .  .  !  !  !  +  +  +  +  +   3 before\n|"
                  "  without the mask      .  .  .  !  !  !  !  +  +  +  +  +   4 before\n|"
                  "  parents in front      .  .  .  .  .  !  !  +  +  +  +  +   2 before\n|"
                  "  index chosen anew     .  .  .  .  .  .  .  +  +  +  +  +   0 before\n");
    expect_output("explain --example six --step=scatter", "out        1 2.796");
    expect_output("explain --example six-grown --step=scatter", "coverage   0 1|Position 0 receives nothing");
}
END_TEST

START_TEST(one_step_and_a_walk)
{
    program_result result;
    program_run(&result, "explain --step=order");
    ck_assert_ptr_nonnull(strstr(result.out, "4. Order"));
    ck_assert_ptr_null(strstr(result.out, "3. Select"));
    ck_assert_ptr_nonnull(freopen("/dev/null", "r", stdin)); /* without a terminal nobody is waited for */
    program_run(&result, "explain --step");
    ck_assert_int_eq(result.status, 0);
    ck_assert_ptr_nonnull(strstr(result.out, "1. Pool"));
    ck_assert_ptr_nonnull(strstr(result.out, "7. Backward"));
}
END_TEST

/* The file that the suites of `run` use: 2 heads that share one key/value head, 2 tiles. */
START_TEST(a_head_of_a_file)
{
    write_small("in", NONE);
    expect_output("explain --head 1 in",
                  "in, batch 0, head 1\n|(2 tiles)|level 2, tile 1: by query|7. Backward");
    expect_output("explain --levels 1 in", "L = 1: nothing to choose");
}
END_TEST

static void read_text(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

/* Elements closed in the order in which they were opened, one root, nothing behind it. */
static void check_well_formed(const char *text)
{
    char open[16][16];
    int depth = 0, roots = 0;
    for (const char *at = strchr(text, '<'); at; at = strchr(at + 1, '<')) {
        char name[16] = "";
        const char *end = strchr(at, '>');
        ck_assert_ptr_nonnull(end);
        if (at[1] == '/') {
            ck_assert_int_eq(sscanf(at, "</%15[a-z]>", name), 1);
            ck_assert_int_gt(depth, 0);
            ck_assert_str_eq(name, open[--depth]);
        } else {
            ck_assert_int_eq(sscanf(at, "<%15[a-z]", name), 1);
            roots += depth == 0;
            if (end[-1] != '/')
                strcpy(open[depth++], name);
            ck_assert_int_lt(depth, 16);
        }
    }
    ck_assert_int_eq(depth, 0);
    ck_assert_int_eq(roots, 1);
    for (const char *at = text; (at = strchr(at, '&')); at++)
        ck_assert_msg(at[1] == '#', "unescaped: %.20s", at);
}

START_TEST(pictures)
{
    static char text[1 << 20];
    program_succeeds("explain --svg whole.svg");
    read_text("whole.svg", text, sizeof text);
    check_well_formed(text);
    ck_assert_ptr_nonnull(strstr(text, "prefers-color-scheme:dark"));
    for (int step = 1; step <= 7; step++) {
        char title[16];
        snprintf(title, sizeof title, "\"title\">%d. ", step);
        ck_assert_msg(strstr(text, title), "%s", title);
    }
    ck_assert_ptr_nonnull(strstr(text, "K: by key, 3<"));
    ck_assert_ptr_nonnull(strstr(text, ">o 2.583  lse 2.485<"));
    program_succeeds("explain --text a<b&c>\"'d --topk 2 --svg odd.svg");
    read_text("odd.svg", text, sizeof text);
    check_well_formed(text);
    ck_assert_ptr_nonnull(strstr(text, ">&#60;</text>"));
    program_succeeds("explain --text abcdefgh --topk 2 --step=select --svg one.svg");
    read_text("one.svg", text, sizeof text);
    ck_assert_ptr_null(strstr(text, "4. Order"));
    ck_assert_ptr_nonnull(strstr(text, "3. Select"));
    program_succeeds("explain --leak 7 --svg leak.svg");
    read_text("leak.svg", text, sizeof text);
    check_well_formed(text);
    ck_assert_ptr_null(strstr(text, "3. Select"));
    ck_assert_ptr_nonnull(strstr(text, ">without the shift</text>"));
}
END_TEST

static const struct {
    const char *words, *parts;
} refused[] = {
    {"explain --token 12", "--token is 12|0 to 11"},
    {"explain --token -1", "--token is -1|at least 0"},
    {"explain --why 21", "--why is 21|0 to 20"},
    {"explain --gradient 12", "--gradient is 12|0 to 11"},
    {"explain --step=pol", "--step is 'pol'|pool"},
    {"explain --levels 2", "wanted IN or --text"},
    {"explain --head 1", "wanted IN"},
    {"explain --dim 4", "wanted --text"},
    {"explain --head 2 in", "--head is 2|0 to 1"},
    {"explain --batch 9 in", "--batch is 9|wanted 0 to"},
    {"explain --text abc in", "wanted either it or --text"},
    {"explain in in", "second file is 'in'"},
    {"explain absent", "absent"},
    {"explain --text abc --pool 1", "pool"},
    {"explain --text abc --topk 3", "tile_topk"},
    {"explain --text abc --levels 60", "wanted"},
    {"explain --text abc --topk 600", "tokens is|at most 256"},
    {"explain --leak 12", "--leak is 12|0 to 11"},
    {"explain --example seven", "'seven'|twelve, six or six-grown"},
    {"explain --example six in", "--example is 'six'|without IN"},
    {"explain --svg no/where.svg", "no/where.svg"},
};

START_TEST(refuses)
{
    write_small("in", NONE);
    program_refused(refused[_i].words, refused[_i].parts);
}
END_TEST

/* Sentences of many shapes through the functions themselves: explain_run compares roles with the index and weights
 * with lse; the rest is compared here. */
START_TEST(derived)
{
    static const lh_config shapes[] = {
        {1, 1, 1, 0, 4, 3, 2, 4, 4}, {1, 1, 1, 0, 1, 3, 2, 4, 2}, {1, 1, 1, 0, 3, 2, 3, 6, 6},
        {1, 1, 1, 0, 2, 4, 2, 2, 2}, {1, 1, 1, 0, 5, 1, 2, 0, 0}, {1, 1, 1, 0, 2, 3, 3, 8, 4},
    };
    static const char *const texts[] = {"a", "to be or not to be", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                        "the quick brown fox jumps over the lazy dog"};
    lh_error error;
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        explain e = {0};
        expect_status(explain_sentence(&e, texts[t], &shapes[_i], t, &error), LH_OK, &error, "");
        expect_status(explain_run(&e, e.config.tokens / 2, &error), LH_OK, &error, "");
        int64_t parents = 0;
        for (int64_t i = 0; i < e.layout.entries; i++)
            parents += explain_is_parent(&e, i);
        ck_assert_int_eq(parents, e.config.levels == 1 ? 0 : (e.config.levels - 1) * e.config.topk);
        for (int64_t j = 0; j < e.config.tokens; j++) {
            int32_t received = 0;
            for (int level = 0; level < e.config.levels; level++) {
                const int64_t entry = explain_received(&e, level, j);
                if (entry < 0)
                    continue;
                const explain_window p = explain_positions(&e, entry), w = explain_tokens(&e, entry);
                received++;
                ck_assert(p.first <= j && j < p.first + p.size && w.first + w.size - 1 <= j);
            }
            ck_assert_int_eq(received, e.coverage[j]);
        }
        for (int step = 0; step < EXPLAIN_STEPS; step++) {
            FILE *sink = tmpfile();
            explain_print(&e, (explain_step)step, sink);
            for (int64_t j = 0; step == 0 && j < e.config.tokens; j++)
                explain_token(&e, j, sink);
            for (int64_t i = 0; step == 0 && i < e.layout.entries; i++)
                explain_why(&e, i, sink);
            ck_assert_int_gt(ftell(sink), 0);
            fclose(sink);
        }
        explain_free(&e);
    }
}
END_TEST

START_TEST(numbers)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},         {1, "1"},        {-0.25, "-0.25"},    {1.0 / 3, "0.333"},
                 {100, "100"},     {99.999, "100"}, {12.5, "12.5"},      {1e-5, "1e-05"},
                 {2e7, "2e+07"},   {9.9999, "10"},  {-0.0001, "-1e-04"}, {1000, "1000"},
                 {123.45, "123.5"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_str_eq(explain_number(cases[i].value, text), cases[i].text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("explain");
    TCase *program = suite_case(suite, "program");
    tcase_add_checked_fixture(program, program_start, program_finish);
    tcase_add_test(program, worked_example);
    tcase_add_test(program, stories);
    tcase_add_test(program, leaks);
    tcase_add_test(program, one_step_and_a_walk);
    tcase_add_test(program, a_head_of_a_file);
    tcase_add_test(program, pictures);
    tcase_add_loop_test(program, refuses, 0, sizeof refused / sizeof *refused);
    TCase *functions = suite_case(suite, "functions");
    tcase_add_loop_test(functions, derived, 0, 6);
    tcase_add_test(functions, numbers);
    return suite_run(suite);
}
