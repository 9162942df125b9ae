//! The table.

use core::fmt;
use std::time::Duration;

use crate::processes::Usage;
use crate::token_loop::Window;

/// Everything that was measured.
pub(crate) struct Report {
    /// Enrolments a run.
    pub(crate) messages: usize,
    /// Processors of this machine.
    pub(crate) processors: usize,
    /// The bare token loop, by threads.
    pub(crate) windows: Vec<Window>,
    /// The appliance, by clients.
    pub(crate) rows: Vec<Row>,
}

/// One run.
pub(crate) struct Row {
    /// Clients at once.
    pub(crate) clients: usize,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// One an enrolment, shortest first.
    pub(crate) latencies: Vec<Duration>,
    /// What each role used.
    pub(crate) roles: Vec<Usage>,
    /// CPU time of the clients.
    pub(crate) own_cpu: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} enrolments a run: RSA-2048 devices, P-256 issuing key, SoftHSM, {} processors\n",
            self.messages, self.processors
        )?;
        self.bound(f)?;
        writeln!(f)?;
        self.speed(f)?;
        writeln!(f)?;
        self.usage(f)
    }
}

impl Report {
    fn bound(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bare token loop   enrolments/s   CPU ms/enrolment")?;
        for window in &self.windows {
            writeln!(
                f,
                "{:>2} {:<14} {:>12.0} {:>18.2}",
                window.threads,
                plural("thread", usize::from(window.threads)),
                rate(window.enrolments as f64, window.elapsed),
                milliseconds(window.cpu) / window.enrolments as f64
            )?;
        }
        Ok(())
    }

    fn speed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = self.windows.last();
        let bound = bound.map_or(f64::NAN, |window| {
            rate(window.enrolments as f64, window.elapsed)
        });
        let threads = self.windows.last().map_or(0, |window| window.threads);
        writeln!(
            f,
            "appliance         enrolments/s   of {threads}-thread bound   p50 ms   p99 ms"
        )?;
        for row in &self.rows {
            let speed = rate(row.latencies.len() as f64, row.elapsed);
            writeln!(
                f,
                "{:>2} {:<14} {speed:>12.0} {:>19.2} {:>8.1} {:>8.1}",
                row.clients,
                plural("client", row.clients),
                speed / bound,
                milliseconds(percentile(&row.latencies, 50)),
                milliseconds(percentile(&row.latencies, 99))
            )?;
        }
        Ok(())
    }

    fn usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU ms/enrolment ")?;
        for row in &self.rows {
            write!(
                f,
                "{:>13}",
                format!("{} {}", row.clients, plural("client", row.clients))
            )?;
        }
        writeln!(f, "{:>11}", "PSS MiB")?;
        let Some(last) = self.rows.last() else {
            return Ok(());
        };
        for (index, usage) in last.roles.iter().enumerate() {
            write!(f, "   {:<14}", usage.role)?;
            for row in &self.rows {
                let cpu = row
                    .roles
                    .get(index)
                    .map_or(Duration::ZERO, |usage| usage.cpu);
                write!(f, "{:>13.2}", row.for_each(cpu))?;
            }
            match usage.pss {
                Some(kib) => writeln!(f, "{:>11.1}", kib as f64 / 1024.0)?,
                None => writeln!(f, "{:>11}", "-")?,
            }
        }
        write!(f, "   {:<14}", "clients")?;
        for row in &self.rows {
            write!(f, "{:>13.2}", row.for_each(row.own_cpu))?;
        }
        write!(f, "\n   {:<14}", "all")?;
        for row in &self.rows {
            let roles: Duration = row.roles.iter().map(|usage| usage.cpu).sum();
            write!(f, "{:>13.2}", row.for_each(roles + row.own_cpu))?;
        }
        writeln!(f)?;
        if last.roles.iter().any(|usage| usage.pss.is_none()) {
            writeln!(
                f,
                "\nThe roles are not dumpable: root alone is told their PSS."
            )?;
        }
        Ok(())
    }
}

impl Row {
    fn for_each(&self, cpu: Duration) -> f64 {
        milliseconds(cpu) / self.latencies.len() as f64
    }
}

fn plural(word: &str, count: usize) -> String {
    match count {
        1 => word.into(),
        _ => format!("{word}s"),
    }
}

fn rate(count: f64, elapsed: Duration) -> f64 {
    count / elapsed.as_secs_f64()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// By nearest rank: the smallest value that at least `percent` of all do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(numbers: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        numbers.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted = millis(1..=200);
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
        assert_eq!(percentile(&millis([5]), 50), Duration::from_millis(5));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn the_table_is_aligned() {
        let window = |threads: u16, enrolments| Window {
            threads,
            enrolments,
            elapsed: Duration::from_secs(2),
            cpu: Duration::from_millis(1900) * u32::from(threads),
        };
        let usage = |role, cpu, pss| Usage {
            role,
            cpu: Duration::from_millis(cpu),
            pss,
        };
        let row = |clients, seconds| Row {
            clients,
            elapsed: Duration::from_secs(seconds),
            latencies: millis(1..=400),
            roles: vec![usage("front", 40, Some(2048)), usage("ra", 800, None)],
            own_cpu: Duration::from_millis(20),
        };
        let report = Report {
            messages: 400,
            processors: 2,
            windows: vec![window(1, 1000), window(2, 1900)],
            rows: vec![row(1, 4), row(8, 1)],
        };
        let expected = "\
400 enrolments a run: RSA-2048 devices, P-256 issuing key, SoftHSM, 2 processors

bare token loop   enrolments/s   CPU ms/enrolment
 1 thread                  500               1.90
 2 threads                 950               2.00

appliance         enrolments/s   of 2-thread bound   p50 ms   p99 ms
 1 client                  100                0.11    200.0    396.0
 8 clients                 400                0.42    200.0    396.0

CPU ms/enrolment      1 client    8 clients    PSS MiB
   front                  0.10         0.10        2.0
   ra                     2.00         2.00          -
   clients                0.05         0.05
   all                    2.15         2.15

The roles are not dumpable: root alone is told their PSS.
";
        assert_eq!(report.to_string(), expected);
    }
}
