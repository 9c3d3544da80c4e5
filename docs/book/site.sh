#!/bin/sh
# The site: site.sh FOLDER LIGHTHOUSE PAGE.html|none makes FOLDER/site. 77 = SKIP without mkdocs and its theme.
#
# Strict: a link to a page that is not there is an error. Every file that a page names must be in the site, and nothing may be
# fetched from elsewhere when it is read.
set -eu
folder=$1 lighthouse=$2 page=$3
python=/usr/bin/python3
"$python" -c 'import mkdocs, material' 2>/dev/null || python=python3
"$python" -c 'import mkdocs, material' 2>/dev/null || {
    echo "SKIP: no mkdocs with its theme material (Debian: mkdocs mkdocs-material)"
    exit 77
}
export PYTHONDONTWRITEBYTECODE=1
[ "$page" = none ] && page=
"$python" "$(dirname "$0")/book.py" --stage "$folder/book" --lighthouse "$lighthouse" ${page:+--page "$page"}
"$python" -m mkdocs build -q --strict --clean -f "$folder/book/mkdocs.yml" -d "$folder/site"
"$python" - "$folder/site" <<'END'
import pathlib, re, sys
site = pathlib.Path(sys.argv[1])
index = (site / "search" / "search_index.json").read_text()
for word in ("lh_plan_create", "post-order", "ref_scatter"):
    if word not in index:
        sys.exit(f"the search index does not know {word}")
bad, pages = [], sorted(set(site.rglob("*.html")) - {site / "404.html"})
for page in pages:
    text = page.read_text()
    for tag, address in re.findall(r'<(img|script|link|iframe)[^>]*? (?:src|href)="?([^"\s>]+)', text):
        if re.match(r"https?:|//", address) and "canonical" not in text[max(0, text.find(address) - 60) : text.find(address)]:
            bad.append(f"{page.relative_to(site)}: {tag} from {address}")
        elif not re.match(r"https?:|//|data:|#", address) and not (page.parent / address.split("?")[0].split("#")[0]).exists():
            bad.append(f"{page.relative_to(site)}: {tag} {address} is not there")
print("\n".join(bad) or f"{len(pages)} pages, everything they need beside them")
sys.exit(bool(bad))
END
