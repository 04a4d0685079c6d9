#!/usr/bin/env bash
# A quarter or half an hour on a GPU machine without network:
#
#   benchmarks/gpu_session.sh check DIR [SECONDS]   is training correct there?  (gpu_check.py)
#   benchmarks/gpu_session.sh study DIR [SECONDS]   the whole default study     (gpu_study.py)
#   benchmarks/gpu_session.sh speed DIR [SECONDS]   how fast, computed how?     (gpu_speed.py)
#
# A call stops after SECONDS (540) with exit code 75 if it is not finished; the same call, on the
# same machine, goes on. Each begins with what is most valuable: `check` of 90 seconds says whether
# the default models train there as planned. DIR gets its results, at most 6 files of 15 MB. It
# needs a python3 that has PyTorch and, in the root of the checkout,
#   .whl/*.whl   wheels of the packages that this python3 lacks;
#   .images/     for `study`: cifar-10-python.tar.gz, or an archive of image files, IMAGES.tar or
#                IMAGES.tar.xz (train/<class>/*, test/<class>/*). A script unpack*.py in it is run
#                to write these: python3 unpack*.py FOLDER. The archive may come in parts, each in
#                a call of its own, IMAGES.tar.part1of3 and so on, made by
#                split -n 3 --numeric-suffixes=1 -a 1 --additional-suffix=of3 IMAGES.tar IMAGES.tar.part
#                If a part is missing, another whole archive is used.
# TOY=1 runs all of it at toy size, also on a CPU. gpu_study.py describes its variables.
set -euo pipefail
usage="usage: benchmarks/gpu_session.sh check|study|speed DIR [SECONDS]"
what=${1:?$usage} out=${2:?$usage} seconds=${3:-540}
case $what in check | study | speed) ;; *) echo "$usage" >&2; exit 2 ;; esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
until=$((EPOCHSECONDS + seconds))
cd "$(dirname "$0")/.."
home=$PWD/.gpu_session
mkdir -p "$home/bin" "$home/parts" "$home/raw" "$home/config"

# Packages.
if ls .whl/*.whl >/dev/null 2>&1; then
	wheels=$(ls .whl | cksum)
	if [ "$(cat "$home/wheels" 2>/dev/null)" != "$wheels" ]; then
		rm -rf "$home/packages"
		python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-index \
			--no-deps --no-compile --no-cache-dir --target "$home/packages" .whl/*.whl
		echo "$wheels" >"$home/wheels"
	fi
fi
# Stages run `python`. A script, since through a link Python would not find its environment.
printf '#!/bin/sh\nexec "%s" "$@"\n' "$(command -v python3)" >"$home/bin/python"
chmod +x "$home/bin/python"
export PATH=$home/bin:$home/packages/bin:$PATH
export PYTHONPATH=$home/packages${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1 DVC_NO_ANALYTICS=1
export DVC_GLOBAL_CONFIG_DIR=$home/config DVC_SYSTEM_CONFIG_DIR=$home/config DVC_SITE_CACHE_DIR=$home/config
export MPLCONFIGDIR=$home/config CIFARPIPE_DATA=$home/raw
# Set before CUDA starts: without it, cuBLAS is not deterministic.
export CUBLAS_WORKSPACE_CONFIG=:4096:8
command -v dvc >/dev/null && python3 -c 'import torch, torchvision, pydantic, ruamel.yaml, pytorch_grad_cam' || {
	echo "error: packages are missing; put their wheels into .whl/ (see benchmarks/gpu_session.sh)" >&2
	exit 2
}

# Images: keep the parts that came with this call; unpack them for the study.
for part in .images/*.part*of*; do
	if [ -e "$part" ]; then cp "$part" "$home/parts/"; fi
done

whole_archive() { # print the archive to unpack, joined from its parts if all are here
	local first=("$home"/parts/*.part1of*) name count archives
	if [ -e "${first[0]}" ]; then
		name=${first[0]##*/} count=${first[0]##*of}
		name=${name%.part1of*}
		if [ "$(ls "$home/parts/$name".part*of"$count" | wc -l)" = "$count" ]; then
			# shellcheck disable=SC2046 # names of parts have no spaces
			cat $(seq -f "$home/parts/$name.part%gof$count" "$count") >"$home/$name"
			echo "$home/$name"
			return
		fi
	fi
	archives=(.images/*.tar.xz .images/*.tar)
	for name in "${archives[@]}"; do
		if [ -e "$name" ]; then
			echo "$name"
			return
		fi
	done
}

if [ "$what" = study ] && [ -e .images/cifar-10-python.tar.gz ]; then
	cp -n .images/cifar-10-python.tar.gz "$home/raw/"
elif [ "$what" = study ]; then
	archive=$(whole_archive)
	digest=$([ -z "$archive" ] || sha256sum <"$archive")
	if [ -n "$archive" ] && [ "$(cat "$home/unpacked" 2>/dev/null)" != "$digest" ]; then
		echo "unpacking $archive"
		rm -rf "$home/raw/images" "$home/archive"
		mkdir -p "$home/raw/images" "$home/archive"
		tar -xf "$archive" -C "$home/archive"
		script=$(find "$home/archive" -maxdepth 2 -name 'unpack*.py' | head -n 1)
		if [ -n "$script" ]; then
			python3 "$script" "$home/raw/images"
		else
			mv "$home"/archive/* "$home/raw/images/"
		fi
		rm -rf "$home/archive"
		echo "$digest" >"$home/unpacked"
	fi
fi

status=0
python3 -m "benchmarks.gpu_$what" "$out" --until "$until" || status=$?
echo "exit code $status; results:"
ls -l "$out"
exit "$status"
