/* Folders of the user's own, by the XDG base directory rules. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/folder.h"

bool lh_user_folder(const char *variable, const char *under_home, bool make, char folder[LH_FOLDER])
{
    static const char own[] = "/lighthouse";
    const char *root = getenv(variable), *home = getenv("HOME");
    int length;
    if (root && root[0] == '/')
        length = snprintf(folder, LH_FOLDER, "%s", root);
    else if (home && home[0] == '/')
        length = snprintf(folder, LH_FOLDER, "%s/%s", home, under_home);
    else
        return false;
    if (length < 0 || (size_t)length + sizeof own > LH_FOLDER)
        return false;
    if (make && mkdir(folder, 0700) != 0 && errno != EEXIST)
        return false;
    strcat(folder, own);
    return !make || mkdir(folder, 0700) == 0 || errno == EEXIST;
}
