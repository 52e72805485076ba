//! Reads the kernel's files. What cannot be read or understood is left out, never guessed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use flow::Fault;

use super::Collect;

/// Bytes of one sector in `diskstats`, whatever the drive's own are (kernel documentation, iostats).
const SECTOR_BYTES: f64 = 512.0;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub name: &'static str,
    pub device: Option<String>,
    pub value: f64,
    pub unit: &'static str,
}

impl Sample {
    fn new(name: &'static str, device: impl Into<Option<String>>, value: f64, unit: &'static str) -> Self {
        Self {
            name,
            device: device.into(),
            value,
            unit,
        }
    }
}

/// Time a processor has spent, in ticks.
#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    user: u64,
    system: u64,
    iowait: u64,
    idle: u64,
    other: u64,
}

/// Knows where to look, and what was there the last time.
pub(super) struct Probe {
    proc_dir: PathBuf,
    sys_dir: PathBuf,
    collect: Vec<Collect>,
    before: BTreeMap<String, Ticks>,
}

impl Probe {
    pub(super) fn new(proc_dir: PathBuf, sys_dir: PathBuf, collect: Vec<Collect>) -> Self {
        Self {
            proc_dir,
            sys_dir,
            collect,
            before: BTreeMap::new(),
        }
    }

    /// The host's name and everything that can be measured now.
    pub(super) fn measure(&mut self) -> Result<(String, Vec<Sample>), Fault> {
        if !self.proc_dir.join("stat").exists() {
            return Err(Fault::retry(format!(
                "{} is not the kernel's proc file system",
                self.proc_dir.display()
            )));
        }
        let host = self.proc("sys/kernel/hostname").trim().to_string();
        let mut samples = Vec::new();
        for group in self.collect.clone() {
            match group {
                Collect::Cpu => self.cpu(&mut samples),
                Collect::Memory => self.memory(&mut samples),
                Collect::Disk => self.disk(&mut samples),
                Collect::Network => self.network(&mut samples),
                Collect::Temperature => self.temperature(&mut samples),
            }
        }
        Ok((host, samples))
    }

    /// A file's text; empty when there is none.
    fn proc(&self, name: &str) -> String {
        fs::read_to_string(self.proc_dir.join(name)).unwrap_or_default()
    }

    fn cpu(&mut self, out: &mut Vec<Sample>) {
        let mut now = BTreeMap::new();
        for line in self.proc("stat").lines() {
            if let Some((name, ticks)) = ticks(line) {
                let device = if name == "cpu" { "all" } else { name };
                now.insert(device.to_string(), ticks);
            }
        }
        for (device, after) in &now {
            if let Some(before) = self.before.get(device) {
                shares(device, *before, *after, out);
            }
        }
        self.before = now;
        let load = self.proc("loadavg");
        for (name, value) in ["load.1m", "load.5m", "load.15m"]
            .into_iter()
            .zip(load.split_whitespace())
        {
            out.extend(value.parse().ok().map(|value| Sample::new(name, None, value, "")));
        }
        let uptime = self.proc("uptime");
        let seconds = uptime
            .split_whitespace()
            .next()
            .and_then(|seconds| seconds.parse().ok());
        out.extend(seconds.map(|seconds| Sample::new("uptime", None, seconds, "s")));
    }

    fn memory(&self, out: &mut Vec<Sample>) {
        let text = self.proc("meminfo");
        let bytes = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1024.0)
        };
        let total = bytes("MemTotal");
        // Kernels before 3.14 do not say what is available; free, buffers and cache are about that.
        let available =
            bytes("MemAvailable").or_else(|| Some(bytes("MemFree")? + bytes("Buffers")? + bytes("Cached")?));
        let used = |total: Option<f64>, free: Option<f64>| Some(total? - free?);
        let swap = bytes("SwapTotal");
        for (name, value) in [
            ("memory.total", total),
            ("memory.available", available),
            ("memory.used", used(total, available)),
            ("swap.total", swap),
            ("swap.used", used(swap, bytes("SwapFree"))),
        ] {
            out.extend(value.map(|value| Sample::new(name, None, value, "B")));
        }
    }

    fn disk(&self, out: &mut Vec<Sample>) {
        self.disk_space(out);
        for line in self.proc("diskstats").lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, name, _, _, read, _, _, _, written, ..] = fields[..] else {
                continue;
            };
            // Whole drives only; their partitions are part of them, and loops and RAM disks are no drives.
            let is_drive = self.sys_dir.join("block").join(name.replace('/', "!")).exists();
            if !is_drive || ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind)) {
                continue;
            }
            for (metric, sectors) in [("disk.read", read), ("disk.written", written)] {
                let sectors: Option<f64> = sectors.parse().ok();
                out.extend(sectors.map(|n| Sample::new(metric, name.to_string(), n * SECTOR_BYTES, "B")));
            }
        }
    }

    /// Space of what is mounted from a drive, each drive once.
    fn disk_space(&self, out: &mut Vec<Sample>) {
        let mut seen = BTreeSet::new();
        // Of process 1, so that in a container the host's mounts are seen where its proc is.
        let mut mounts = self.proc("1/mounts");
        if mounts.is_empty() {
            mounts = self.proc("self/mounts");
        }
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            let (Some(drive), Some(place)) = (fields.next(), fields.next()) else {
                continue;
            };
            if !(drive.starts_with("/dev/") && !drive.starts_with("/dev/loop") || place == "/")
                || !seen.insert(drive.to_string())
            {
                continue;
            }
            let place = unescape(place);
            let Some([total, used, free]) = space(Path::new(&place)) else {
                continue;
            };
            for (name, value) in [("disk.total", total), ("disk.used", used), ("disk.free", free)] {
                out.push(Sample::new(name, place.clone(), value, "B"));
            }
        }
    }

    fn network(&self, out: &mut Vec<Sample>) {
        // Of process 1: our own may live in another network.
        let mut text = self.proc("1/net/dev");
        if text.is_empty() {
            text = self.proc("net/dev");
        }
        for line in text.lines() {
            let Some((name, counters)) = line.split_once(':') else {
                continue;
            };
            let counters: Vec<f64> = counters
                .split_whitespace()
                .map_while(|counter| counter.parse().ok())
                .collect();
            let [
                received,
                _,
                in_errors,
                in_dropped,
                _,
                _,
                _,
                _,
                sent,
                _,
                out_errors,
                out_dropped,
                ..,
            ] = counters[..]
            else {
                continue;
            };
            let name = name.trim();
            if name == "lo" {
                continue;
            }
            for (metric, value, unit) in [
                ("network.received", received, "B"),
                ("network.sent", sent, "B"),
                ("network.errors", in_errors + out_errors, ""),
                ("network.dropped", in_dropped + out_dropped, ""),
            ] {
                out.push(Sample::new(metric, name.to_string(), value, unit));
            }
        }
    }

    fn temperature(&self, out: &mut Vec<Sample>) {
        let zones = entries(&self.sys_dir.join("class/thermal"), "thermal_zone");
        for zone in zones {
            let kind = text(&zone.join("type"));
            out.extend(celsius(&zone.join("temp")).map(|value| {
                Sample::new(
                    "temperature",
                    format!("{} {}", name_of(&zone), kind.unwrap_or_default())
                        .trim()
                        .to_string(),
                    value,
                    "°C",
                )
            }));
        }
        for chip in entries(&self.sys_dir.join("class/hwmon"), "hwmon") {
            let chip_name = text(&chip.join("name")).unwrap_or_else(|| name_of(&chip));
            for input in entries(&chip, "temp") {
                let file = name_of(&input);
                let Some(sensor) = file.strip_suffix("_input") else {
                    continue;
                };
                let label = text(&chip.join(format!("{sensor}_label"))).unwrap_or_else(|| sensor.to_string());
                // The chip's number tells two of a kind apart.
                let device = format!("{} {chip_name} {label}", name_of(&chip));
                out.extend(celsius(&input).map(|value| Sample::new("temperature", device, value, "°C")));
            }
        }
    }
}

/// `cpu0 12 0 5 …` (kernel documentation, proc: user nice system idle iowait irq softirq steal; guests are part of user).
fn ticks(line: &str) -> Option<(&str, Ticks)> {
    let mut fields = line.split_whitespace();
    let name = fields.next().filter(|name| name.starts_with("cpu"))?;
    let counters: Vec<u64> = fields.map_while(|counter| counter.parse().ok()).collect();
    let at = |index: usize| counters.get(index).copied().unwrap_or(0);
    let ticks = Ticks {
        user: at(0) + at(1),
        system: at(2),
        idle: at(3),
        iowait: at(4),
        other: at(5) + at(6) + at(7),
    };
    (counters.len() >= 4).then_some((name, ticks))
}

fn shares(device: &str, before: Ticks, after: Ticks, out: &mut Vec<Sample>) {
    // Counters of a core that was off, and iowait at any time, may go backwards.
    let spent = |field: fn(&Ticks) -> u64| field(&after).saturating_sub(field(&before)) as f64;
    let [user, system, iowait, idle] = [
        spent(|t| t.user),
        spent(|t| t.system),
        spent(|t| t.iowait),
        spent(|t| t.idle),
    ];
    let total = user + system + iowait + idle + spent(|t| t.other);
    if total == 0.0 {
        return;
    }
    for (name, ticks) in [
        ("cpu.busy", total - idle - iowait),
        ("cpu.user", user),
        ("cpu.system", system),
        ("cpu.iowait", iowait),
    ] {
        out.push(Sample::new(name, device.to_string(), ticks * 100.0 / total, "%"));
    }
}

/// Bytes in all, used, and free for those who are not root.
fn space(place: &Path) -> Option<[f64; 3]> {
    let stat = rustix::fs::statvfs(place).ok()?;
    let bytes = |blocks: u64| blocks as f64 * stat.f_frsize as f64;
    (stat.f_blocks > 0).then(|| {
        [
            bytes(stat.f_blocks),
            bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            bytes(stat.f_bavail),
        ]
    })
}

/// Spaces and the like in a mount point stand there as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// What is in a directory and begins like that, in order.
fn entries(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = listed
        .map(|entry| entry.path())
        .filter(|path| name_of(path).starts_with(prefix))
        .collect();
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

/// A sensor's reading, which it gives in thousandths. A sensor that is off cannot be read.
fn celsius(path: &Path) -> Option<f64> {
    text(path)?.parse::<f64>().ok().map(|thousandths| thousandths / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine as it was written down.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn measured(probe: &mut Probe) -> Vec<String> {
        let (host, samples) = probe.measure().unwrap();
        assert_eq!(host, "gw-1");
        let shown = |s: &Sample| {
            format!(
                "{} {} {} {}",
                s.name,
                s.device.as_deref().unwrap_or("-"),
                s.value,
                s.unit
            )
        };
        samples
            .iter()
            .map(|sample| shown(sample).trim_end().to_string())
            .collect()
    }

    #[test]
    fn reads_what_is_there() {
        use Collect::{Cpu, Disk, Memory, Network, Temperature};
        let dir = machine(&[
            (
                "proc/stat",
                "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 100 0 100 800 0 0 0 0\nintr 5\n",
            ),
            ("proc/sys/kernel/hostname", "gw-1\n"),
            ("proc/loadavg", "0.50 0.25 0.10 1/100 999\n"),
            ("proc/uptime", "12.34 5.6\n"),
            (
                "proc/meminfo",
                "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            ),
            (
                "proc/diskstats",
                " 8 0 sda 1 0 10 0 2 0 20 0\n 8 1 sda1 1 0 10 0 2 0 20 0\n 7 0 loop0 1 0 1 0 1 0 1 0\nshort\n",
            ),
            ("sys/block/sda/size", "1"),
            ("sys/block/loop0/size", "1"),
            (
                "proc/net/dev",
                "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:10 1 2 3 0 0 0 0 20 1 4 5 0 0 0 0\n",
            ),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48500\n"),
            ("sys/class/thermal/thermal_zone1/type", "broken\n"),
            ("sys/class/hwmon/hwmon0/name", "nvme\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "-1250\n"),
            ("sys/class/hwmon/hwmon0/temp1_label", "Composite\n"),
            ("sys/class/hwmon/hwmon0/temp2_input", "off\n"),
        ]);
        let (proc_dir, sys_dir) = (dir.path().join("proc"), dir.path().join("sys"));
        for (group, wanted) in [
            (
                Memory,
                vec![
                    "memory.total - 1024000 B",
                    "memory.available - 256000 B",
                    "memory.used - 768000 B",
                    "swap.total - 0 B",
                    "swap.used - 0 B",
                ],
            ),
            (Disk, vec!["disk.read sda 5120 B", "disk.written sda 10240 B"]),
            (
                Network,
                vec![
                    "network.received eth0 10 B",
                    "network.sent eth0 20 B",
                    "network.errors eth0 6",
                    "network.dropped eth0 8",
                ],
            ),
            (
                Temperature,
                vec![
                    "temperature thermal_zone0 cpu-thermal 48.5 °C",
                    "temperature hwmon0 nvme Composite -1.25 °C",
                ],
            ),
        ] {
            assert_eq!(
                measured(&mut Probe::new(proc_dir.clone(), sys_dir.clone(), vec![group])),
                wanted
            );
        }
        // Rates need two readings.
        let mut probe = Probe::new(proc_dir.clone(), sys_dir.clone(), vec![Cpu]);
        assert_eq!(
            measured(&mut probe),
            ["load.1m - 0.5", "load.5m - 0.25", "load.15m - 0.1", "uptime - 12.34 s"]
        );
        fs::write(
            proc_dir.join("stat"),
            "cpu  125 0 125 840 5 3 2 0 0 0\ncpu0 100 0 100 800 0 0 0 0\n",
        )
        .unwrap();
        let now = measured(&mut probe);
        assert_eq!(
            now[..4],
            [
                "cpu.busy all 55 %",
                "cpu.user all 25 %",
                "cpu.system all 25 %",
                "cpu.iowait all 5 %"
            ]
        );
        assert_eq!(now.len(), 8, "a core that did not tick has no shares");
    }

    #[test]
    fn a_bare_machine_is_measured_too() {
        let dir = machine(&[("proc/stat", "cpu\n"), ("proc/sys/kernel/hostname", "gw-1")]);
        let mut probe = Probe::new(
            dir.path().join("proc"),
            dir.path().join("sys"),
            super::super::everything(),
        );
        assert_eq!(measured(&mut probe), [""; 0]);
        let mut nowhere = Probe::new(
            dir.path().join("none"),
            dir.path().join("sys"),
            super::super::everything(),
        );
        assert!(
            nowhere
                .measure()
                .unwrap_err()
                .to_string()
                .contains("is not the kernel's proc file system")
        );
    }
}
