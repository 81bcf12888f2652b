#!/usr/bin/env bash
# The running half of a container: makes a slim Debian 12 that holds build.sh's OUT as /opt/tmd
# ready.
set -euo pipefail
mapfile -t packages </opt/tmd/packages
packages+=(
  openmpi-bin openssh-client   # mpirun, and its way to other hosts
  libibverbs1 ibverbs-providers # InfiniBand, which NCCL loads when it is there
  fonts-dejavu-core            # letters of plots and contact sheets
)
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
rm -rf /var/lib/apt/lists/*
ln -s /opt/tmd/bin/tmd /usr/local/bin/tmd
# cuDNN loads its parts by name
echo /opt/tmd/lib >/etc/ld.so.conf.d/tmd.conf
ldconfig
if ldd /opt/tmd/bin/tmd | grep 'not found' >&2; then exit 1; fi
