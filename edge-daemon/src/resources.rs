//! What this process uses of its host, and facts about the host. Reads `/proc`; elsewhere it knows less.

use std::{fs, path::Path};

use bus_schema::message::{HostFacts, Resources};

/// Clock ticks a second in `/proc/self/stat`; fixed by the kernel's user-space interface on every Linux we build for.
const TICKS_PER_SECOND: u64 = 100;

/// What this process uses now.
pub fn measure(data_dir: &Path, spool_bytes: u64) -> Resources {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Resources {
        rss_bytes: kib_of(&status, "VmRSS:") * 1024,
        rss_peak_bytes: kib_of(&status, "VmHWM:") * 1024,
        cpu_ms: cpu_ms(&stat),
        spool_bytes,
        disk_free_bytes: disk_free(data_dir),
    }
}

#[cfg(unix)]
fn disk_free(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

#[cfg(not(unix))]
fn disk_free(_: &Path) -> u64 {
    0
}

fn kib_of(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// User and system time: fields 14 and 15, counted after the command name, which may hold spaces (proc_pid_stat(5)).
fn cpu_ms(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |index| {
        fields
            .split_whitespace()
            .nth(index)
            .and_then(|n: &str| n.parse::<u64>().ok())
            .unwrap_or(0)
    };
    (ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND
}

/// Facts about the host.
pub fn host_facts() -> HostFacts {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    HostFacts {
        hostname: hostname(),
        os: os_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        arch: std::env::consts::ARCH.to_string(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get().min(usize::from(u16::MAX)) as u16),
        memory_bytes: kib_of(&meminfo, "MemTotal:") * 1024,
        version: env!("CARGO_PKG_VERSION").to_string(),
    }
}

/// The host's name.
pub fn hostname() -> String {
    let from_kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_kernel
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map(|name| name.trim().to_string())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "gateway".to_string())
}

/// The host's name as a daemon's name: what does not fit becomes '-'.
pub fn name_from_host() -> String {
    let name: String = hostname()
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(bus_schema::limits::NAME_BYTES_MAX)
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "gateway".to_string()
    } else {
        name.to_string()
    }
}

fn os_name(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(
        || std::env::consts::OS.to_string(),
        |name| name.trim_matches('"').to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(kib_of("VmPeak:\t  10 kB\nVmRSS:\t   5120 kB\n", "VmRSS:"), 5120);
        let stat = "1 (a b) c) S 1 1 1 0 -1 4194560 1 1 1 1 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_ms(stat), 2000);
        assert_eq!(
            os_name("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert!(bus_schema::member::is_name(&name_from_host()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let used = measure(Path::new("/"), 7);
        assert!(used.rss_bytes > 1 << 20 && used.rss_peak_bytes >= used.rss_bytes && used.disk_free_bytes > 0);
    }
}
