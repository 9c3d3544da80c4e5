/* safetensors files: round trips, every hostile input by name and value, and failures while writing. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/safetensors.h"
#include "tests/suite.h"

/* A file image: the header's length in front of `header`, then `data` zero bytes. Returns its size. */
static size_t image(unsigned char *bytes, const char *header, size_t data)
{
    const size_t length = strlen(header);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(bytes + 8, header, length);
    memset(bytes + 8 + length, 0, data);
    return 8 + length + data;
}

static void expect_parse(const void *bytes, size_t size, lh_status wanted, const char *part)
{
    const int64_t live = lh_alloc_live();
    lh_file *file;
    lh_error error;
    const lh_status status = lh_file_parse(bytes, size, "x.safetensors", &file, &error);
    expect_status(status, wanted, &error, part);
    ck_assert(wanted == LH_OK ? file != NULL : file == NULL);
    lh_file_free(file);
    ck_assert_int_eq(lh_alloc_live(), live);
}

/* Headers, the bytes of data behind them, and a part of the error they must give; "" is a good file. */
static const struct {
    const char *header;
    size_t data;
    const char *part;
} headers[] = {
    {"{}", 0, ""},
    {"{}   ", 0, ""},
    {"{\"__metadata__\":{}}", 0, ""},
    /* What nobody reads may have any type and rank, but covers its bytes as everything does. */
    {"{\"m\":{\"dtype\":\"BOOL\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, ""},
    {"{\"m\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,1,2,1,2],\"data_offsets\":[0,4]}}", 4, ""},
    {"{\"m\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, ""},
    {"{\"m\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 8, "data is 8 bytes"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}", 24, ""},
    {"{\"q\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, ""},
    {"{\"q\":{\"dtype\":\"F64\",\"shape\":[0,5],\"data_offsets\":[0,0]}}", 0, ""},
    {"{\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[2,10]},"
     "\"a\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}}",
     10, ""},
    {"", 0, "header starts with nothing"},
    {" {}", 0, "wanted a JSON object"},
    {"[]", 0, "wanted a JSON object"},
    {"{\"q\":", 0, "header is not valid JSON at byte"},
    {"{}}", 0, "header is not valid JSON"},
    {"{\"q\\u0000\":{}}", 0, "header is not valid JSON"},
    {"{\"\xff\":{}}", 0, "header is not valid JSON"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
     "\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
     4, "duplicate object key near '\"q\"'"},
    {"{\"q\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
     "duplicate object key"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
    {"{\"__metadata__\":{\"levels\":3}}", 0, "__metadata__ levels is not a string"},
    {"{\"q\":[]}", 0, "tensor q is not an object"},
    {"{\"q\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, "tensor q has dtype that is not a string"},
    {"{\"q\":{\"dtype\":4,\"shape\":[],\"data_offsets\":[0,4]}}", 4,
     "tensor q has dtype that is not a string"},
    {"{\"q\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "tensor q has no array shape"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[1,-1],\"data_offsets\":[0,4]}}", 4,
     "tensor q has size -1 in dimension 1, wanted at least 0"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4,
     "tensor q has a size in dimension 0 that is not an integer"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807],\"data_offsets\":[0,4]}}", 4,
     "tensor q has size 9223372036854775807 in dimension 0, wanted fewer than 2^63 bytes"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,4]}}", 4,
     "too big integer near '9223372036854775808'"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4,
     "tensor q has size 4294967296 in dimension 1, wanted fewer than 2^63 bytes"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     "tensor q has size 4294967296 in dimension 2, wanted fewer than 2^63 bytes"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "tensor q has no pair data_offsets"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4,8]}}", 4,
     "tensor q has no pair data_offsets"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4.0]}}", 4,
     "tensor q has no pair data_offsets"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[-4,0]}}", 4,
     "tensor q has data_offsets -4 to 0"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,0]}}", 4,
     "tensor q has data_offsets 4 to 0"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 3,
     "tensor q has data_offsets 0 to 4, wanted them rising, within the 3 bytes of data"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[9223372036854775803,9223372036854775807]}}", 4,
     "tensor q has data_offsets 9223372036854775803 to 9223372036854775807"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
     "tensor q has 8 bytes of data, wanted 4"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
     "tensor q has 8 bytes of data, wanted 12"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 5, "data is 5 bytes, wanted 4"},
    {"{}", 1, "data is 1 bytes, wanted 0"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}}", 8,
     "tensor q starts at byte 4 of the data, wanted 0 (there is a gap)"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"k\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
     12, "tensor k starts at byte 4 of the data, wanted 8 (it overlaps another)"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
     "\"k\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
     4, "starts at byte 0 of the data, wanted 4 (it overlaps another)"},
    {"{\"a\\n\\u001b[31mb\":{\"dtype\":\"U8\"}}", 0, "tensor a??[31mb has no array shape"},
};

START_TEST(header_is_checked)
{
    unsigned char bytes[1024];
    const size_t size = image(bytes, headers[_i].header, headers[_i].data);
    expect_parse(bytes, size, *headers[_i].part ? LH_FORMAT : LH_OK, headers[_i].part);
}
END_TEST

START_TEST(length_is_checked)
{
    unsigned char bytes[16] = "\x03\0\0\0\0\0\0\0{}";
    expect_parse(bytes, 0, LH_FORMAT, "file is 0 bytes, wanted at least 8");
    expect_parse(bytes, 7, LH_FORMAT, "file is 7 bytes, wanted at least 8");
    expect_parse(bytes, 10, LH_FORMAT, "header length is 3, wanted at most the 2 bytes that follow");
    memcpy(bytes, "\x00\xe1\xf5\x05\0\0\0\0", 8); /* 100,000,000 is allowed, but not there */
    expect_parse(bytes, 10, LH_FORMAT, "header length is 100000000, wanted at most the 2 bytes");
    memcpy(bytes, "\x01\xe1\xf5\x05\0\0\0\0", 8);
    expect_parse(bytes, 10, LH_FORMAT,
                 "header length is 100000001, wanted at most 100000000: is this safetensors?");
    memset(bytes, 0xff, 8);
    expect_parse(bytes, 10, LH_FORMAT, "header length is 18446744073709551615, wanted at most 100000000");
    memcpy(bytes, "\0\0\0\0\0\0\0\x80", 8);
    expect_parse(bytes, 10, LH_FORMAT, "header length is 9223372036854775808, wanted at most 100000000");
}
END_TEST

/* A header of over 100 MB that is really there is refused from its length alone. */
START_TEST(huge_header)
{
    const char *path = scratch_path(scratch_folder(), "huge.safetensors");
    lh_file *file;
    lh_error error;
    write_bytes(path, "\x01\xe1\xf5\x05\0\0\0\0{}", 10);
    ck_assert_int_eq(truncate(path, 100000001 + 8), 0); /* sparse */
    expect_status(lh_file_read(path, &file, &error), LH_FORMAT, &error, "header length is 100000001");
    ck_assert_uint_lt(lh_alloc_peak(), 4096);
    ck_assert_int_eq(unlink(path), 0);
}
END_TEST

/* Nesting to the depth of a megabyte must not exhaust the stack. */
START_TEST(deep_header)
{
    enum {
        DEPTH = 1 << 20
    };
    char *header = malloc(DEPTH + 1);
    unsigned char *bytes = malloc(DEPTH + 9);
    memset(header, '[', DEPTH);
    memcpy(header, "{\"q\":", 5);
    header[DEPTH] = 0;
    expect_parse(bytes, image(bytes, header, 0), LH_FORMAT, "header is not valid JSON");
    free(bytes);
    free(header);
}
END_TEST

/* ---- round trips ------------------------------------------------------------------------------ */

static double data[64] = {1, -2, 3.5, 4, 5, 6, 7, 8, -0.0};
static const lh_file_entry entries[] = {
    {"half", {data, LH_BF16, 1, {3}, {1}}},
    {"index", {data + 1, LH_I64, 3, {1, 2, 3}, {6, 3, 1}}},
    {"odd \"name\" \xc3\xa9", {data, LH_F32, 4, {1, 2, 1, 3}, {6, 3, 3, 1}}},
    {"scalar", {data + 3, LH_F64, 0, {0}, {0}}},
    {"empty", {NULL, LH_F16, 2, {0, 4}, {4, 1}}},
    {"columns", {data, LH_F64, 2, {3, 2}, {5, 1}}},
    {"count", {data, LH_I32, 1, {5}, {1}}},
};
enum {
    ENTRIES = sizeof entries / sizeof *entries
};
static const lh_file_meta metadata[] = {
    {"levels", "3"}, {"note", "tab\t quote\" \xe2\x82\xac"}, {"empty", ""}};

START_TEST(round_trip)
{
    const char *folder = scratch_folder(), *path = scratch_path(folder, "a.safetensors");
    const int64_t live = lh_alloc_live();
    lh_file *file;
    lh_error error;
    expect_status(lh_file_write(path, entries, ENTRIES, metadata, 3, &error), LH_OK, &error, "");
    expect_status(lh_file_read(path, &file, &error), LH_OK, &error, "");
    ck_assert_int_eq(lh_file_count(file), ENTRIES);
    for (int i = 0; i < ENTRIES; i++) {
        const lh_tensor *wanted = &entries[i].tensor, *got = lh_file_find(file, entries[i].name);
        char wanted_hash[65], got_hash[65];
        ck_assert_msg(got != NULL, "%s is missing", entries[i].name);
        ck_assert_int_eq(got->dtype, wanted->dtype);
        ck_assert_int_eq(got->rank, wanted->rank);
        ck_assert_mem_eq(got->shape, wanted->shape, sizeof(int64_t) * (size_t)got->rank);
        ck_assert(lh_tensor_contiguous(got));
        ck_assert_uint_eq((uintptr_t)got->data % 64, 0);
        lh_tensor_sha256(wanted, wanted_hash);
        lh_tensor_sha256(got, got_hash);
        ck_assert_str_eq(got_hash, wanted_hash);
    }
    ck_assert_ptr_null(lh_file_find(file, "absent"));
    for (int i = 0; i < 3; i++)
        ck_assert_str_eq(lh_file_metadata(file, metadata[i].key), metadata[i].value);
    ck_assert_ptr_null(lh_file_metadata(file, "absent"));
    lh_file_free(file);
    ck_assert_int_eq(lh_alloc_live(), live);
    ck_assert_int_eq(folder_entries(folder), 1);
    remove_folder(folder);
}
END_TEST

/* The bytes themselves: padded header, widest elements first, nothing that depends on time or machine. */
START_TEST(layout_of_bytes)
{
    static const unsigned char wanted[] =
        "\x90\0\0\0\0\0\0\0"
        "{\"__metadata__\":{\"levels\":\"1\"},\"w\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"h\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[8,12]}}     "
        "\0\0\0\0\0\0\xf8\x3f"
        "\x34\x12\x78\x56";
    double w = 1.5;
    uint16_t h[2] = {0x1234, 0x5678};
    const lh_file_entry two[] = {{"h", {h, LH_F16, 2, {1, 2}, {2, 1}}}, {"w", {&w, LH_F64, 0, {0}, {0}}}};
    const char *folder = scratch_folder(), *path = scratch_path(folder, "b.safetensors");
    unsigned char bytes[512];
    lh_error error;
    expect_status(lh_file_write(path, two, 2, &(lh_file_meta){"levels", "1"}, 1, &error), LH_OK, &error, "");
    ck_assert_uint_eq(read_bytes(path, bytes, sizeof bytes), sizeof wanted - 1);
    ck_assert_mem_eq(bytes, wanted, sizeof wanted - 1);
    remove_folder(folder);
}
END_TEST

/* A valid file cut anywhere, or with any one byte of its header changed, never crashes; a cut is an error. */
START_TEST(cut_and_changed)
{
    const char *folder = scratch_folder(), *path = scratch_path(folder, "c.safetensors");
    static unsigned char bytes[4096];
    lh_error error;
    lh_file *file;
    expect_status(lh_file_write(path, entries, ENTRIES, metadata, 3, &error), LH_OK, &error, "");
    const size_t size = read_bytes(path, bytes, sizeof bytes);
    const int64_t live = lh_alloc_live();
    for (size_t cut = 0; cut < size; cut++) {
        ck_assert_int_eq(lh_file_parse(bytes, cut, "cut", &file, &error), LH_FORMAT);
        ck_assert_ptr_null(file);
    }
    int refused = 0;
    for (size_t at = 0; at < 8 + (size_t)bytes[0] + 256 * (size_t)bytes[1]; at++) {
        for (int flip = 1; flip < 256; flip += 6) {
            bytes[at] ^= (unsigned char)flip;
            const lh_status status = lh_file_parse(bytes, size, "changed", &file, &error);
            ck_assert(status == LH_OK || status == LH_FORMAT);
            refused += status != LH_OK;
            lh_file_free(file);
            bytes[at] ^= (unsigned char)flip;
        }
    }
    ck_assert_int_gt(refused, 1000);
    ck_assert_int_eq(lh_alloc_live(), live);
    remove_folder(folder);
}
END_TEST

/* ---- paths ------------------------------------------------------------------------------------ */

START_TEST(unreadable)
{
    const char *folder = scratch_folder(), *path = scratch_path(folder, "fifo");
    lh_file *file;
    lh_error error;
    expect_status(lh_file_read("/nonexistent/x", &file, &error), LH_IO, &error,
                  "/nonexistent/x cannot be opened: No such file");
    expect_status(lh_file_read(folder, &file, &error), LH_IO, &error, "is not a regular file");
    expect_status(lh_file_read("/dev/zero", &file, &error), LH_IO, &error, "/dev/zero is not a regular file");
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_status(lh_file_read(path, &file, &error), LH_IO, &error, "is not a regular file");
    remove_folder(folder);
}
END_TEST

static void expect_write(const char *path, lh_status wanted, const char *part)
{
    const int64_t live = lh_alloc_live();
    lh_error error;
    expect_status(lh_file_write(path, entries, ENTRIES, metadata, 3, &error), wanted, &error, part);
    ck_assert_int_eq(lh_alloc_live(), live);
}

START_TEST(unwritable)
{
    const char *folder = scratch_folder();
    expect_write("/nonexistent/x", LH_IO, "/nonexistent/x cannot be created: No such file or directory");
    expect_write("/dev/full", LH_IO, "/dev/full is not a regular file");
    expect_write("/dev/null", LH_IO, "/dev/null is not a regular file");
    expect_write(folder, LH_IO, "is not a regular file");
    expect_write("/proc/x", LH_IO, "/proc/x cannot be created");
    expect_write("", LH_IO, "cannot be");
    ck_assert_int_eq(folder_entries(folder), 0);
    remove_folder(folder);
}
END_TEST

/* As somebody whom the permissions bind: a folder or a file that may not be written. */
START_TEST(no_permission)
{
    const char *folder = scratch_folder(), *path = scratch_path(folder, "r.safetensors");
    const mode_t before = umask(0);
    write_bytes(path, "old", 3);
    ck_assert_int_eq(chmod(path, 0444), 0);
    ck_assert_int_eq(chmod(folder, 0777), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    expect_write(path, LH_IO, "r.safetensors cannot be written: Permission denied");
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    expect_write(scratch_path(folder, "new.safetensors"), LH_IO,
                 "new.safetensors cannot be created: Permission denied");
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(chmod(folder, 0777), 0);
    ck_assert_int_eq(folder_entries(folder), 1);
    remove_folder(folder);
    umask(before);
}
END_TEST

/* A disk that fills up after any number of bytes: the old file stays, nothing else is left. */
START_TEST(full_disk)
{
    const char *folder = scratch_folder(), *path = scratch_path(folder, "f.safetensors");
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    char old[8];
    struct stat about;
    lh_error error;
    signal(SIGXFSZ, SIG_IGN);
    expect_status(lh_file_write(path, entries, ENTRIES, metadata, 3, &error), LH_OK, &error, "");
    ck_assert_int_eq(stat(path, &about), 0);
    write_bytes(path, "old", 3);
    for (off_t most = 0; most < about.st_size; most += 7) {
        const struct rlimit limit = {(rlim_t)most, RLIM_INFINITY};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        const lh_status status = lh_file_write(path, entries, ENTRIES, metadata, 3, &error);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
        expect_status(status, LH_IO, &error, "f.safetensors cannot be written: File too large");
        ck_assert_int_eq(folder_entries(folder), 1);
        ck_assert_uint_eq(read_bytes(path, old, sizeof old), 3);
        ck_assert_mem_eq(old, "old", 3);
    }
    expect_status(lh_file_write(path, entries, ENTRIES, metadata, 3, &error), LH_OK, &error, "");
    remove_folder(folder);
}
END_TEST

/* Replaced files keep their mode; a symbolic link stays one. */
START_TEST(replacing)
{
    const char *folder = scratch_folder();
    char path[512], link[512];
    struct stat about;
    lh_file *file;
    lh_error error;
    snprintf(path, sizeof path, "%s/target", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    write_bytes(path, "old", 3);
    ck_assert_int_eq(chmod(path, 0700), 0);
    ck_assert_int_eq(symlink("target", link), 0);
    expect_status(lh_file_write(link, entries, ENTRIES, NULL, 0, &error), LH_OK, &error, "");
    ck_assert_int_eq(lstat(link, &about), 0);
    ck_assert(S_ISLNK(about.st_mode));
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_int_eq(about.st_mode & 0777, 0700);
    expect_status(lh_file_read(path, &file, &error), LH_OK, &error, "");
    ck_assert_ptr_null(lh_file_metadata(file, "levels"));
    lh_file_free(file);
    /* A name without a folder lands in the working folder. */
    ck_assert_int_eq(chdir(folder), 0);
    expect_status(lh_file_write("bare", entries, ENTRIES, NULL, 0, &error), LH_OK, &error, "");
    ck_assert_int_eq(folder_entries("."), 3);
    remove_folder(folder);
}
END_TEST

START_TEST(refused_arguments)
{
    const char *folder = scratch_folder(), *path = scratch_path(folder, "x");
    lh_error error;
    const lh_tensor good = {data, LH_F64, 1, {2}, {1}};
    lh_file_entry bad[2] = {{"q", good}, {"q", good}};
    expect_status(lh_file_write(path, bad, 2, NULL, 0, &error), LH_INVALID, &error, "q is there twice");
    bad[1].name = "__metadata__";
    expect_status(lh_file_write(path, bad, 2, NULL, 0, &error), LH_INVALID, &error,
                  "name of tensor 1 is __metadata__");
    bad[1].name = NULL;
    expect_status(lh_file_write(path, bad, 2, NULL, 0, &error), LH_INVALID, &error,
                  "name of tensor 1 is NULL");
    bad[1].name = "\xff";
    expect_status(lh_file_write(path, bad, 2, NULL, 0, &error), LH_INVALID, &error,
                  "wanted a string in UTF-8");
    bad[1].name = "k";
    bad[1].tensor.data = NULL;
    expect_status(lh_file_write(path, bad, 2, NULL, 0, &error), LH_INVALID, &error, "k has data NULL");
    bad[1].tensor = good;
    bad[1].tensor.rank = -1;
    expect_status(lh_file_write(path, bad, 2, NULL, 0, &error), LH_INVALID, &error, "k has rank -1");
    expect_status(lh_file_write(path, bad, 1, &(lh_file_meta){"note", "\xc3"}, 1, &error), LH_INVALID, &error,
                  "note is not UTF-8");
    expect_status(lh_file_write(path, bad, 1, &(lh_file_meta){"note", NULL}, 1, &error), LH_INVALID, &error,
                  "note is NULL");
    const lh_file_meta twice[] = {{"a", "1"}, {"a", "2"}};
    expect_status(lh_file_write(path, bad, 1, twice, 2, &error), LH_INVALID, &error, "a is there twice");
    ck_assert_int_eq(folder_entries(folder), 0);
    remove_folder(folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *hostile = suite_case(suite, "hostile");
    tcase_add_loop_test(hostile, header_is_checked, 0, sizeof headers / sizeof *headers);
    tcase_add_test(hostile, length_is_checked);
    tcase_add_test(hostile, huge_header);
    tcase_add_test(hostile, deep_header);
    tcase_add_test(hostile, cut_and_changed);
    TCase *good = suite_case(suite, "round trips");
    tcase_add_test(good, round_trip);
    tcase_add_test(good, layout_of_bytes);
    tcase_add_test(good, replacing);
    TCase *paths = suite_case(suite, "paths");
    tcase_add_test(paths, unreadable);
    tcase_add_test(paths, unwritable);
    tcase_add_test(paths, no_permission);
    tcase_add_test(paths, full_disk);
    tcase_add_test(paths, refused_arguments);
    return suite_run(suite);
}
