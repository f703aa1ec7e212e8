#!/usr/bin/env bash
# Makes a Debian 12 machine with systemd (the Vagrant VM, a container, a plain machine) into a box to try anomaly on:
# Kafka 3.9 with its ZooKeeper, PostgreSQL 15, topics, tables, and the package with all three roles running.
# Run as root; again whenever you like: what is there already stays.
set -euo pipefail
umask 022 # the services read what is written here
export DEBIAN_FRONTEND=noninteractive

usage() {
  cat <<'EOF'
usage: vagrant/provision.sh [PACKAGE.deb]     default: the newest of target/debian

  ANOMALY_DASHBOARD   address of the pages (default: 127.0.0.1:8501; a VM whose port is forwarded needs 0.0.0.0:8501)
EOF
}

say() { printf 'provision: %s\n' "$*"; }
die() { printf 'provision: error: %s\n' "$*" >&2; exit 69; }

case ${1-} in
  -h | --help | help) usage; exit ;;
esac
((EUID == 0)) || die "run it as root"
[[ -d /run/systemd/system ]] || die "systemd does not run here; without it: tests/box up"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
package=${1:-$(find "$here/../target/debian" -name 'anomaly_*.deb' -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d ' ' -f 2-)}
[[ -f $package ]] || die "no package: run 'make deb' first, or name one"
package=$(realpath "$package")
cd /

# --- packages of Debian ---------------------------------------------------------------------------------

need() {
  local package missing=()
  for package; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  apt-get -q update
  apt-get -q -y --no-install-recommends install "${missing[@]}"
}
need openjdk-17-jre-headless postgresql-15

# --- Kafka and ZooKeeper: the jars and the settings of tests/box ----------------------------------------

jars=$here/../target/box/jars
if [[ $(cat /opt/kafka/jars/pom.sha256 2>/dev/null) != "$(sha256sum <"$here/pom.xml")" ]]; then
  if [[ $(cat "$jars/pom.sha256" 2>/dev/null) != "$(sha256sum <"$here/pom.xml")" ]]; then
    need maven
    jars=$(ANOMALY_BOX_DIR=/opt/kafka "$here/../tests/box" jars)
  else
    mkdir -p /opt/kafka
    rm -rf /opt/kafka/jars
    cp -r "$jars" /opt/kafka/jars
  fi
  rm -f /opt/kafka/jars/*.jsa*
fi
id kafka >/dev/null 2>&1 || useradd --system --home-dir /var/lib/kafka --shell /usr/sbin/nologin kafka

changed=
settle() { # FILE: takes its text from standard input; notes a change
  local text
  text=$(cat)
  [[ $text == "$(cat "$1" 2>/dev/null)" ]] || { printf '%s\n' "$text" >"$1"; changed=yes; }
}
mkdir -p /etc/kafka
settle /etc/kafka/zookeeper.properties < <(cat "$here/zookeeper.properties" - <<'EOF'
dataDir=/var/lib/zookeeper
clientPort=2181
EOF
)
settle /etc/kafka/kafka.properties < <(cat "$here/kafka.properties" - <<'EOF'
listeners=PLAINTEXT://127.0.0.1:9092
zookeeper.connect=127.0.0.1:2181
log.dirs=/var/lib/kafka
EOF
)
for file in zookeeper.jvm kafka.jvm log4j.properties; do
  settle "/etc/kafka/$file" <"$here/$file"
done
for unit in zookeeper kafka; do
  settle "/etc/systemd/system/$unit.service" <"$here/$unit.service"
done
systemctl daemon-reload
systemctl enable --quiet zookeeper kafka
[[ -z $changed ]] || systemctl stop kafka zookeeper
say "starting ZooKeeper, Kafka and PostgreSQL"
systemctl start zookeeper kafka postgresql

# --- PostgreSQL: one role owns the tables, another one, to which `anomaly migrate` gives them, writes and reads ------------------------------

psql() { runuser -u postgres -- psql -XqtA -v ON_ERROR_STOP=1 "$@"; }
await() { # SECONDS WHAT COMMAND...
  local limit=$1 what=$2 began=$SECONDS
  shift 2
  until "$@" >/tmp/provision.last 2>&1; do
    ((SECONDS - began < limit)) || { cat /tmp/provision.last >&2; die "$what does not answer after $limit s"; }
    sleep 0.5
  done
  say "$what answers after $((SECONDS - began)) s"
}
await 60 PostgreSQL psql -c 'select 1'

credentials=/etc/anomaly/credentials
mkdir -p /etc/anomaly/conf.d
install -d -m 700 "$credentials"
secret() { # FILE: a password, made at first use
  [[ -s $1 ]] || (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$1")
  cat "$1"
}
{
  # In the input, not in the arguments: those are for all to see.
  for role in owner user; do
    [[ $role == owner ]] && file=$credentials/migrate.password || file=$credentials/postgres.password
    [[ $(psql -c "select 1 from pg_roles where rolname = 'anomaly_$role'") == 1 ]] || echo "create role anomaly_$role login;"
    echo "alter role anomaly_$role password '$(secret "$file")';"
  done
  [[ $(psql -c "select 1 from pg_database where datname = 'anomalies_db'") == 1 ]] ||
    echo "create database anomalies_db owner anomaly_owner;"
} | psql

# --- anomaly ----------------------------------------------------------------------------------------------

# Written before the package is installed, which then finds its roles configured, and starts them.
changed=
settle /etc/anomaly/conf.d/50-box.toml <<EOF
# Made by vagrant/provision.sh.
[kafka]
bootstrap_servers = "127.0.0.1:9092"

[topics]
replication = 1

[postgres]
host = "127.0.0.1"

[migrate]
user = "anomaly_owner"

[dashboard]
listen = "${ANOMALY_DASHBOARD:-127.0.0.1:8501}"
# A test box, reached through a forwarded port.
insecure = true
EOF

version=$(dpkg-deb -f "$package" Version)
installed=$(dpkg-query -W -f='${db:Status-Status} ${Version}' anomaly 2>/dev/null || true)
if [[ $installed != "installed $version" ]]; then
  say "installing anomaly $version"
  # apt's own user cannot read everywhere.
  install -m 644 "$package" "/var/cache/apt/archives/${package##*/}"
  apt-get -q -y --no-install-recommends install "/var/cache/apt/archives/${package##*/}"
fi
await 300 Kafka anomaly topics
await 60 "the database" anomaly migrate
for role in detector dashboard producer; do
  systemctl enable --quiet "anomaly-$role"
  [[ -z $changed ]] || systemctl try-restart "anomaly-$role"
  systemctl start "anomaly-$role"
  say "anomaly-$role: $(systemctl show -P StatusText "anomaly-$role")"
done
listen=${ANOMALY_DASHBOARD:-127.0.0.1:8501}
say "done. Pages: http://localhost:${listen##*:}/   Log: journalctl -f -u anomaly-detector"
