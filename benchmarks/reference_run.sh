#!/usr/bin/env bash
# The reference run on a GPU machine without network: from images to a finished `dvc repro`.
#
#   benchmarks/reference_run.sh DIR [SECONDS]
#
# Run it in the root of a checkout, with a python3 that has PyTorch. It needs, in that root,
#   .whl/*.whl   wheels of the packages that this python3 lacks;
#   .images/     cifar-10-python.tar.gz, or an archive of image files, such as
#                cifar10-images.tar.xz (train/<class>/*, test/<class>/*).
# It stops after SECONDS (540) with exit code 75; the same command, on the same machine, resumes.
# DIR gets run.log, timing.csv, dvc.lock, data/dvc.lock, data/source.json, and the reports in parts
# of 15 MB (cat reports.tar.gz.* | tar xz). PARAMS names another file than params.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/reference_run.sh DIR [SECONDS]}
seconds=${2:-540}
params=${PARAMS:-params.yaml}
run=.reference
end=$((SECONDS + seconds))
mkdir -p "$out" "$run"
out=$(cd "$out" && pwd)

ls .whl/*.whl >/dev/null 2>&1 || { echo "error: no wheels in .whl/; see benchmarks/reference_run.sh" >&2; exit 2; }
if [ ! -e "$run/.installed" ]; then
	python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$run/packages" .whl/*.whl
	touch "$run/.installed"
fi
export PYTHONPATH=$PWD/$run/packages PATH=$PWD/$run/packages/bin:$PATH PYTHONUNBUFFERED=1 DVC_NO_ANALYTICS=1
export CIFARPIPE_DATA=$PWD/$run/raw
# Stages run `python`. A script, since through a link Python would not find its environment.
mkdir -p "$run/bin"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$(command -v python3)" >"$run/bin/python"
chmod +x "$run/bin/python"
export PATH=$PWD/$run/bin:$PATH

mkdir -p "$run/raw"
if [ -e .images/cifar-10-python.tar.gz ]; then
	cp -n .images/cifar-10-python.tar.gz "$run/raw/"
	source=cifar10 folder=null
else
	archive=$(ls .images/*.tar.xz) || { echo "error: no images in .images/; see benchmarks/reference_run.sh" >&2; exit 2; }
	mkdir -p "$run/raw/images"
	[ -e "$run/raw/.unpacked" ] || { tar -xf "$archive" -C "$run/raw/images" && touch "$run/raw/.unpacked"; }
	source=folder folder=$(cd "$run/raw" && find images -maxdepth 2 -type d -name train -printf '%h')
fi

mkdir -p "$run/study/.dvc" "$run/study/data" "$run/study/reports"
rm -rf "$run/study/cifarpipe" "$run/study/stages"
cp -R cifarpipe stages dvc.yaml .dvcignore "$run/study/"
cp -R data/baselines data/dvc.yaml "$run/study/data/"
cp -R .dvc/config .dvc/plots .dvc/plots_page.html "$run/study/.dvc/"
printf '[core]\n    no_scm = true\n' >"$run/study/.dvc/config.local"
sed -E "s|^(  source:).*|\1 $source|; s|^(  folder:).*|\1 $folder|" "$params" >"$run/study/params.yaml"

with_seconds() { while IFS= read -r line; do printf '%(%s)T %s\n' -1 "$line"; done; }
status=0
left=$((end - SECONDS))
(cd "$run/study" && timeout --signal=INT --kill-after=20 $((left > 1 ? left : 1)) dvc repro 2>&1) |
	with_seconds | tee -a "$run/run.log" || status=$?

cp "$run/run.log" "$out/"
mkdir -p "$out/data"
for file in dvc.lock data/dvc.lock data/source.json; do
	cp "$run/study/$file" "$out/$file" 2>/dev/null || true  # missing until the stage is done
done
rm -f "$out"/reports.tar.gz.*
tar -czf - -C "$run/study" reports | split --bytes=15MB --numeric-suffixes - "$out/reports.tar.gz."
python3 -m benchmarks.timing "$run/run.log" "$run/study/logs" >"$out/timing.csv"
case $status in
0) echo "done: $out" ;;
124 | 137) echo "stopped after $seconds s; the same command resumes"; exit 75 ;;
*) exit "$status" ;;
esac
