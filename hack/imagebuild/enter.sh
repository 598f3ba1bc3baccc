#!/bin/sh
# enter.sh BASE ENGINE ro|rw COMMAND...: run a command on this machine with BASE as the root file system and ENGINE
# at /opt/lora. Everything else that is the machine's (homes, /tmp, devices, the network, the environment's
# variables, the working directory) stays in view. The mounts are private to the command and end with it; BASE is
# under an overlay in memory, so nothing that the command does can change it. The process is replaced at each step:
# signals reach the command itself.
set -eu
if [ "${LORA_ENTERED:-}" != "$$" ]; then
    LORA_ENTERED=$$ exec unshare --mount --propagation private -- sh "$0" "$@"
fi
unset LORA_ENTERED
base=$1 engine=$2 mode=$3
shift 3
where=$PWD

scratch=${base%/*}/mnt
mkdir -p "$scratch"
mount -t tmpfs -o mode=0755 tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
root=$scratch/root
mount -t overlay -o "lowerdir=$base,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$root"

share() {
    if [ -d "$1" ]; then
        mkdir -p "$root$1"
    elif [ -e "$1" ]; then
        mkdir -p "$root${1%/*}"
        touch "$root$1"
    else
        return 0
    fi
    mount --rbind "$1" "$root$1"
}

for path in /*; do
    case $path in
        /bin | /boot | /etc | /lib* | /lost+found | /opt | /run | /sbin | /usr | /var) ;;
        *) [ ! -d "$path" ] || share "$path" ;;
    esac
done
# The machine's certificates, names and pip settings are lent, never copied.
for path in /etc/ssl /etc/resolv.conf /etc/hosts /etc/pip.conf; do
    share "$path"
done
# What may lie below a directory that was left out above.
for path in "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" "${LORA_CHECKOUT:-}" "$where"; do
    [ -z "$path" ] || [ -e "$root$path" ] || share "$path"
done
mkdir -p "$root/opt/lora"
mount --bind "$engine" "$root/opt/lora"
[ "$mode" = rw ] || mount -o remount,bind,ro "$root/opt/lora"

exec chroot "$root" /usr/bin/env PATH=/opt/lora/env/bin:/usr/local/bin:/usr/bin:/bin \
    sh -c 'cd "$0" && exec "$@"' "$where" "$@"
