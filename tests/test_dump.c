/*
 * `lighthouse check` and `lighthouse vectors` as their users meet them.
 *
 * Longer than other files: each test is a file that is made in its own way, and what must be said of it.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/convert.h"
#include "core/safetensors.h"
#include "tests/program.h"
#include "tests/suite.h"

/* Reads a vector, lets `change` break it, and writes it as another file. */
typedef void change_fn(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas);

static void rewrite(const char *from, const char *to, change_fn *change)
{
    static const char *const keys[] = {"levels", "pool", "topk", "tile_topk"};
    lh_file_entry entries[LH_TENSOR_COUNT + 1];
    lh_file_meta meta[4];
    lh_file *file;
    lh_error error;
    int count, metas = 0;
    ck_assert_msg(lh_file_read(from, &file, &error) == LH_OK, "%s", error.text);
    for (count = 0; count < lh_file_count(file); count++)
        entries[count] = (lh_file_entry){lh_file_name(file, count), *lh_file_tensor(file, count)};
    for (int i = 0; i < 4; i++) {
        if (lh_file_metadata(file, keys[i]))
            meta[metas++] = (lh_file_meta){keys[i], lh_file_metadata(file, keys[i])};
    }
    change(entries, &count, meta, &metas);
    ck_assert_msg(lh_file_write(to, entries, count, meta, metas, &error) == LH_OK, "%s", error.text);
    lh_file_free(file);
}

static lh_file_entry *find(lh_file_entry *entries, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(entries[i].name, name) == 0)
            return &entries[i];
    }
    ck_abort_msg("no tensor %s", name);
    return NULL;
}

static void drop_q(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    (void)meta;
    (void)metas;
    *find(entries, *count, "q") = entries[*count - 1];
    (*count)--;
}

static void rename_lse(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    (void)meta;
    (void)metas;
    find(entries, *count, "lse")->name = "log_sum_exp";
}

static void drop_levels(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    (void)entries;
    (void)count;
    meta[0] = meta[--*metas];
}

/* dq and dk exchanged: a bug every port has once. */
static void swap_gradients(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    lh_file_entry *dq = find(entries, *count, "dq_sel"), *dk = find(entries, *count, "dk_sel");
    (void)meta;
    (void)metas;
    const char *name = dq->name;
    dq->name = dk->name;
    dk->name = name;
}

START_TEST(a_vector_is_right)
{
    program_succeeds("vectors --tokens 96 --topk 16 v.safetensors");
    program_result result;
    program_run(&result, "check v.safetensors");
    ck_assert_int_eq(result.status, 0);
    ck_assert_str_eq(result.err, "");
    ck_assert_ptr_nonnull(strstr(result.out, "\nall right\n"));
}
END_TEST

START_TEST(a_fault_is_named_and_reported_as_json)
{
    program_result result;
    json_error_t where;
    program_succeeds("vectors v.safetensors");
    rewrite("v.safetensors", "wrong.safetensors", swap_gradients);
    program_run(&result, "check --json report.json wrong.safetensors");
    ck_assert_int_eq(result.status, 1);
    ck_assert_ptr_nonnull(strstr(result.out, "\n>> dq_sel "));
    ck_assert_ptr_nonnull(strstr(result.out, "backward-dq-dk-swapped (breaks SPEC 4)"));
    json_t *report = json_load_file("report.json", 0, &where);
    ck_assert_msg(report != NULL, "%s", where.text);
    ck_assert(json_is_false(json_object_get(report, "ok")));
    ck_assert_str_eq(json_string_value(json_object_get(report, "first_wrong")), "dq_sel");
    const json_t *fault = json_array_get(json_object_get(report, "faults"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(fault, "name")), "backward-dq-dk-swapped");
    ck_assert_str_eq(json_string_value(json_object_get(fault, "stage")), "attend_backward");
    ck_assert_int_ge((int)json_array_size(json_object_get(report, "verdicts")), 20);
    json_decref(report);
}
END_TEST

START_TEST(reports_for_continuous_integration_are_well_formed)
{
    json_error_t where;
    program_result result;
    program_succeeds("vectors v.safetensors");
    rewrite("v.safetensors", "wrong.safetensors", swap_gradients);
    program_run(&result, "check --junit r.xml --sarif r.sarif wrong.safetensors");
    ck_assert_int_eq(result.status, 1);
    json_t *sarif = json_load_file("r.sarif", 0, &where);
    ck_assert_msg(sarif != NULL, "%s", where.text);
    const json_t *run = json_array_get(json_object_get(sarif, "runs"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(sarif, "version")), "2.1.0");
    ck_assert_int_eq((int)json_array_size(json_object_get(run, "results")), 6);
    json_decref(sarif);
    FILE *xml = fopen("r.xml", "r");
    ck_assert_ptr_nonnull(xml);
    char text[8192];
    const size_t n = fread(text, 1, sizeof text - 1, xml);
    text[n] = '\0';
    fclose(xml);
    ck_assert_ptr_nonnull(
        strstr(text, "<testcase classname=\"lighthouse.attend_backward\" name=\"dq_sel\"><failure "));
    ck_assert_ptr_nonnull(strstr(text, "name=\"verdict\"><failure message=\"wrong\"/>"));
    program_refused("check --junit v.safetensors v.safetensors", "wanted another file");
}
END_TEST

START_TEST(a_name_that_is_none_is_said_and_the_rest_judged)
{
    program_result result;
    program_succeeds("vectors v.safetensors");
    rewrite("v.safetensors", "other.safetensors", rename_lse);
    program_run(&result, "check other.safetensors");
    ck_assert_int_eq(result.status, 0);
    ck_assert_ptr_nonnull(strstr(result.out, "tensor 'log_sum_exp' is none of the trace's names"));
    ck_assert_ptr_nonnull(strstr(result.out, "\nall right\n"));
}
END_TEST

/* Keeps of a vector only the tensors named. */
static const char *kept_names;
static void keep_named(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    int kept = 0;
    (void)meta;
    (void)metas;
    for (int i = 0; i < *count; i++) {
        char name[40];
        snprintf(name, sizeof name, " %s ", entries[i].name);
        if (strstr(kept_names, name))
            entries[kept++] = entries[i];
    }
    *count = kept;
}

static void keep(const char *names, const char *to)
{
    kept_names = names;
    rewrite("v.safetensors", to, keep_named);
}

static void rename_out(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    kept_names = " q k v out ";
    keep_named(entries, count, meta, metas);
    find(entries, *count, "out")->name = "o";
}

static void check_says(const char *arguments, int status, const char *line)
{
    program_result result;
    program_run(&result, arguments);
    ck_assert_msg(result.status == status, "%s: exit status %d, wanted %d\n%s", arguments, result.status,
                  status, result.out);
    ck_assert_msg(strstr(result.out, line) != NULL, "%s: no \"%s\" in\n%s", arguments, line, result.out);
}

/* Nothing judged is no success, and what was not judged is said. */
START_TEST(nothing_judged_is_a_failure)
{
    program_succeeds("vectors v.safetensors");
    keep(" q k v ", "qkv.safetensors");
    check_says("check qkv.safetensors", 1, "nothing was judged: wanted at least one computed tensor");
    rewrite("v.safetensors", "o.safetensors", rename_out);
    check_says("check o.safetensors", 1, "tensor 'o' is none of the trace's names: not judged; is it out?");
    keep(" q k v dq ", "dq.safetensors");
    check_says("check dq.safetensors", 1, "dq, not judged: dout is not in the dump");
    keep(" q k v out dq ", "out-dq.safetensors");
    check_says("check out-dq.safetensors", 1, "not judged, though in the dump: dq\nnot all was judged");
    check_says("check --require out out-dq.safetensors", 0, "\nwhat was required is right\n");
}
END_TEST

START_TEST(what_is_required_must_be_judged)
{
    program_succeeds("vectors v.safetensors");
    keep(" q k v dout out ", "out.safetensors");
    check_says("check --require out out.safetensors", 0, "\nall right\n");
    check_says("check --require out,dq out.safetensors", 1, "required and not judged: dq");
    program_refused("check --require out,zz out.safetensors",
                    "'zz' is unknown, wanted names of computed tensors");
    program_refused("check --require dK out.safetensors", "'dK' is unknown|is it dk?");
    program_refused("check --habit quick out.safetensors", "'quick' is unknown");
}
END_TEST

START_TEST(a_report_never_replaces_the_dump)
{
    program_succeeds("vectors v.safetensors");
    program_refused("check --json v.safetensors v.safetensors", "wanted another file");
    program_refused("check --json ./v.safetensors v.safetensors", "wanted another file");
}
END_TEST

/* The last row of the last head of a tensor, off by a hundredth. */
static const char *spoiled_name;
static void spoil_last_row(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    const lh_file_entry *entry = find(entries, *count, spoiled_name);
    const int64_t n = lh_tensor_elements(&entry->tensor),
                  width = entry->tensor.rank == 4 ? entry->tensor.shape[3] : 1;
    double *x = entry->tensor.data;
    (void)meta;
    (void)metas;
    for (int64_t i = n - width; i < n; i++)
        x[i] *= 1.01;
}

/* Judged by rows as judged whole, and no fault of the last rows is missed. */
START_TEST(rows_stand_for_the_whole)
{
    static const char *const tensors[] = {"q_pyr",  "score_k", "k_sel",  "o_sel",  "lse", "out",
                                          "do_sel", "dq_sel",  "dk_sel", "dv_sel", "dq",  "dv"};
    program_succeeds("vectors --tokens 768 --topk 16 --dim 8 v.safetensors");
    check_says("check --sample 4 v.safetensors", 0,
               "judged by rows: the first, the last 64 and 4 drawn (seed 1)");
    check_says("check --sample 4 --seed 7 --heads 2 v.safetensors", 0, "\nall right\n");
    check_says("check --sample 0 v.safetensors", 0, "\nall right\n");
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        char line[64];
        spoiled_name = tensors[i];
        rewrite("v.safetensors", "spoiled.safetensors", spoil_last_row);
        snprintf(line, sizeof line, "first wrong: %s", tensors[i]);
        check_says("check --sample 4 spoiled.safetensors", 1, line);
    }
    keep(" q k v dout index o_sel lse out dq dk dv ", "fused.safetensors");
    check_says("check --sample 4 fused.safetensors", 0, "\nall right\n");
    keep(" q k v dout index q_sel k_sel v_sel ", "rows.safetensors");
    check_says("check --sample 4 rows.safetensors", 0, "judged: index q_sel k_sel v_sel\nall right\n");
    keep(" q k v dout out dq ", "ends.safetensors");
    check_says("check --sample 4 ends.safetensors", 1, "not judged, though in the dump: dq");
    program_refused("check --sample -1 v.safetensors", "--sample is -1");
}
END_TEST

/* Tokens before heads in every tensor of four dimensions and in index, as attention kernels have them. */
static void turn_round(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    (void)meta;
    (void)metas;
    for (int i = 0; i < *count; i++) {
        lh_tensor *t = &entries[i].tensor;
        const int64_t b = t->shape[0], heads = t->shape[1], rows = t->shape[2], n = lh_tensor_elements(t);
        const size_t width = lh_dtype_size(t->dtype) * (size_t)(n / (b * heads * rows)),
                     bytes = (size_t)n * lh_dtype_size(t->dtype);
        if (t->rank != 4 && strcmp(entries[i].name, "index") != 0)
            continue;
        char *from = malloc(bytes), *to = t->data;
        ck_assert_ptr_nonnull(from);
        memcpy(from, to, bytes);
        for (int64_t x = 0; x < b; x++)
            for (int64_t h = 0; h < heads; h++)
                for (int64_t r = 0; r < rows; r++)
                    memcpy(to + (size_t)((x * rows + r) * heads + h) * width,
                           from + (size_t)((x * heads + h) * rows + r) * width, width);
        free(from);
        t->shape[1] = rows;
        t->shape[2] = heads;
        t->stride[0] = n / b;
        t->stride[1] = n / (b * rows);
        t->stride[2] = n / (b * rows * heads);
    }
}

static void say_layout(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    turn_round(entries, count, meta, metas);
    meta[3] = (lh_file_meta){"layout", "bnhd"}; /* in place of tile_topk */
}

START_TEST(tokens_may_come_before_heads)
{
    program_succeeds("vectors --batch 2 --heads 6 --kv-heads 2 --tokens 96 v.safetensors");
    rewrite("v.safetensors", "turned.safetensors", turn_round);
    rewrite("v.safetensors", "said.safetensors", say_layout);
    program_refused(
        "check turned.safetensors",
        "k has shape [2,96,2,8], wanted [2,G,6,8]|it fits as [B,N,H,d]: --layout bnhd reads it so");
    check_says("check --layout bnhd turned.safetensors", 0, "\nall right\n");
    check_says("check --layout bnhd --sample 4 turned.safetensors", 0, "\nall right\n");
    check_says("check --tile-topk 4 said.safetensors", 0, "\nall right\n");
    program_refused("check --layout bhnd --tile-topk 4 said.safetensors", "--layout bnhd reads it so");
    program_refused("check --layout bdhn v.safetensors", "--layout is 'bdhn', wanted bhnd or bnhd");
    /* Dense attention fits either way. */
    program_succeeds("vectors --levels 1 --heads 4 --tokens 40 v.safetensors");
    rewrite("v.safetensors", "dense.safetensors", turn_round);
    check_says("check dense.safetensors", 1,
               "q was read as 40 heads of 4 tokens: if it lies as [B,N,H,d], --layout bnhd reads it so");
    check_says("check --layout bnhd dense.safetensors", 0, "\nall right\n");
}
END_TEST

START_TEST(scores_alone_need_no_v)
{
    program_succeeds("vectors v.safetensors");
    keep(" q k score_q score_k index ", "scores.safetensors");
    check_says("check scores.safetensors", 0, "judged: score_q score_k index\nall right\n");
    check_says("check --sample 4 scores.safetensors", 0, "judged: score_q score_k index\nall right\n");
    keep(" q k lse out ", "out.safetensors");
    check_says("check --require out out.safetensors", 1, "out, not judged: v is not in the dump");
    check_says("check --sample 4 --require out out.safetensors", 1, "out, not judged: v is not in the dump");
    program_refused("run scores.safetensors o.safetensors", "tensor v is absent");
}
END_TEST

static void wrap_levels(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    (void)entries;
    (void)count;
    (void)metas;
    meta[0].value = "18446744073709551619"; /* 2^64 + 3 */
}

START_TEST(a_configuration_does_not_wrap)
{
    program_succeeds("vectors v.safetensors");
    rewrite("v.safetensors", "wrapped.safetensors", wrap_levels);
    program_refused("check wrapped.safetensors",
                    "__metadata__ levels is '18446744073709551619', wanted an integer");
}
END_TEST

static void large_v(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    kept_names = " q k v ";
    keep_named(entries, count, meta, metas);
    const lh_tensor *v = &find(entries, *count, "v")->tensor;
    for (int64_t i = 0; i < lh_tensor_elements(v); i++)
        ((uint16_t *)v->data)[i] = lh_f64_to_f16(40000);
}

/* Infinite where one entry alone reaches, and out is what v is. */
static void infinite_once(lh_file_entry *entries, int *count, lh_file_meta *meta, int *metas)
{
    const lh_tensor *out = &find(entries, *count, "out")->tensor;
    const int32_t *coverage = find(entries, *count, "coverage")->tensor.data;
    int64_t token = 0;
    (void)meta;
    (void)metas;
    while (coverage[token] != 1)
        token++;
    ((uint16_t *)out->data)[token * out->shape[3]] = 0x7c00;
}

START_TEST(an_overflow_is_called_so_and_excuses_no_other_infinity)
{
    static const char *const ways[] = {"check", "check --sample 4"};
    program_succeeds("vectors --dtype f16 v.safetensors");
    rewrite("v.safetensors", "large.safetensors", large_v);
    program_succeeds("run --backend ref --dtype f16 --trace large.safetensors t.safetensors");
    rewrite("t.safetensors", "once.safetensors", infinite_once);
    for (int i = 0; i < 2; i++) {
        char command[64];
        snprintf(command, sizeof command, "%s t.safetensors", ways[i]);
        check_says(command, 1, "overflow at [0,0,");
        check_says(command, 1, "not all was judged, what was is right");
        check_says(command, 1, "F16 holds at most 65504: values overflow; nothing behind them is judged");
        snprintf(command, sizeof command, "%s once.safetensors", ways[i]);
        check_says(command, 1, "first wrong: out");
    }
}
END_TEST

START_TEST(a_backend_is_judged_at_size_and_nothing_compared_is_refused)
{
    program_refused("verify --large --backend ref", "--large compared nothing");
    program_refused("verify --json nowhere/r.json --case small", "nowhere/r.json");
}
END_TEST

START_TEST(what_cannot_be_judged_is_refused)
{
    program_succeeds("vectors v.safetensors");
    rewrite("v.safetensors", "no-q.safetensors", drop_q);
    rewrite("v.safetensors", "no-levels.safetensors", drop_levels);
    program_refused("check no-q.safetensors", "tensor q is absent");
    program_succeeds("run v.safetensors results.safetensors");
    program_refused("check results.safetensors",
                    "tensor q is absent|results alone are not enough, lighthouse run --trace");
    program_refused("check no-levels.safetensors", "levels is in neither");
    program_refused("check --levels 7 v.safetensors", "tokens is 48|2^6");
    program_refused("check --json nowhere/report.json v.safetensors", "nowhere/report.json");
    program_refused("check absent.safetensors", "absent.safetensors");
    program_refused("check", "DUMP.safetensors is missing");
    program_refused("check v.safetensors w.safetensors", "second file is 'w.safetensors'");
}
END_TEST

START_TEST(vectors_refuse_what_is_no_configuration)
{
    program_refused("vectors", "OUT.safetensors is missing");
    program_refused("vectors --tokens 50 v.safetensors", "tokens is 50|2^2");
    program_refused("vectors --dim 0 v.safetensors", "dim is 0|at least 1");
    program_refused("vectors --pattern odd v.safetensors", "--pattern is 'odd'|gaussian|offset");
    program_refused("vectors --standard set v.safetensors", "OUT is 'v.safetensors'");
    program_refused("vectors nowhere/v.safetensors", "nowhere");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dump");
    TCase *tcase = suite_case(suite, "program");
    tcase_add_checked_fixture(tcase, program_start, program_finish);
    tcase_add_test(tcase, a_vector_is_right);
    tcase_add_test(tcase, a_fault_is_named_and_reported_as_json);
    tcase_add_test(tcase, reports_for_continuous_integration_are_well_formed);
    tcase_add_test(tcase, a_name_that_is_none_is_said_and_the_rest_judged);
    tcase_add_test(tcase, nothing_judged_is_a_failure);
    tcase_add_test(tcase, what_is_required_must_be_judged);
    tcase_add_test(tcase, a_report_never_replaces_the_dump);
    tcase_add_test(tcase, tokens_may_come_before_heads);
    tcase_add_test(tcase, scores_alone_need_no_v);
    tcase_add_test(tcase, a_configuration_does_not_wrap);
    tcase_add_test(tcase, an_overflow_is_called_so_and_excuses_no_other_infinity);
    tcase_add_test(tcase, rows_stand_for_the_whole);
    tcase_add_test(tcase, a_backend_is_judged_at_size_and_nothing_compared_is_refused);
    tcase_add_test(tcase, what_cannot_be_judged_is_refused);
    tcase_add_test(tcase, vectors_refuse_what_is_no_configuration);
    return suite_run(suite);
}
