//! Sockets and settings from the environment.

use crate::harness::{self, Test};
use crate::tests;
use chancery_host::activation::{ActivationError, Listeners};
use chancery_host::process::{self, ProcessError};
use chancery_host::supervise::{Role, Socket, SuperviseError, Supervisor};
use std::process::Stdio;
use std::time::Duration;

pub(crate) const TESTS: &[Test] = tests![
    started_by_hand_is_refused,
    another_process_s_sockets_are_refused,
    variables_that_contradict_each_other_are_refused,
    an_announced_descriptor_must_be_open,
    sockets_are_taken_by_name_and_kind,
    the_environment_can_be_set_before_threads_only,
    users_are_found_by_name_and_number,
    diagnostics_name_the_role_and_obey_the_filter,
];

/// The program: exits with 0 if `case` goes as expected, else panics.
pub(crate) fn program(case: &str) {
    use ActivationError as E;
    match case {
        "by-hand" | "other-pid" => {
            assert!(matches!(
                Listeners::from_environment(),
                Err(E::NotActivated)
            ));
        }
        "names" => assert!(matches!(
            Listeners::from_environment(),
            Err(E::Names { ref count, names: 2 }) if count == "1"
        )),
        "closed" => {
            assert!(matches!(
                Listeners::from_environment(),
                Err(E::Closed { fd: 3 })
            ));
        }
        "kinds" => kinds(),
        "environment" => {
            let pair = |name: &str| vec![(name.to_owned(), "value".to_owned())];
            process::set_environment(&pair("CHANCERY_TEST")).unwrap();
            assert_eq!(std::env::var("CHANCERY_TEST").unwrap(), "value");
            let error = process::set_environment(&pair("A=B")).unwrap_err();
            assert!(matches!(error, ProcessError::Variable { .. }));
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || receiver.recv());
            let error = process::set_environment(&pair("CHANCERY_TEST")).unwrap_err();
            assert!(matches!(error, ProcessError::Threads));
            assert!(matches!(Listeners::from_environment(), Err(E::Threads)));
            drop(sender);
            thread.join().unwrap().unwrap_err();
        }
        _ => panic!("unknown case {case}"),
    }
}

fn kinds() {
    use ActivationError as E;
    let mut listeners = Listeners::from_environment().unwrap();
    // Gone, so that no library takes them a second time.
    assert!(std::env::var_os("LISTEN_FDS").is_none());
    assert!(matches!(
        Listeners::from_environment(),
        Err(E::NotActivated)
    ));
    assert_eq!(listeners.seqpacket("unix").unwrap().name(), "unix");
    assert!(matches!(
        listeners.seqpacket("unix"),
        Err(E::Missing { .. })
    ));
    assert!(matches!(listeners.seqpacket("tcp"), Err(E::Several { .. })));
    assert!(matches!(
        listeners.seqpacket("one-tcp"),
        Err(E::NotSeqpacket { .. })
    ));
    assert!(matches!(listeners.tcp("other-unix"), Err(E::NotTcp { .. })));
    assert_eq!(listeners.tcp("two-tcp").unwrap().len(), 2);
    assert!(listeners.tcp("two-tcp").unwrap().is_empty());
    let left = listeners.finish().unwrap_err();
    assert!(
        matches!(&left, E::Unexpected { names } if names == "left"),
        "{left}"
    );
    process::ready();
    loop {
        std::thread::park();
    }
}

fn succeeds(case: &str, environment: &[(&str, &str)]) {
    let mut command = harness::program(&["activation", case]);
    let status = command.envs(environment.iter().copied()).status().unwrap();
    assert!(status.success(), "{case}: {status}");
}

fn started_by_hand_is_refused() {
    succeeds("by-hand", &[]);
}

fn another_process_s_sockets_are_refused() {
    let variables = [
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDNAMES", "a"),
        ("LISTEN_PID", "1"),
    ];
    succeeds("other-pid", &variables);
}

fn variables_that_contradict_each_other_are_refused() {
    succeeds("names", &[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")]);
}

fn an_announced_descriptor_must_be_open() {
    succeeds("closed", &[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a")]);
}

fn sockets_are_taken_by_name_and_kind() {
    let folder = tempfile::tempdir().unwrap();
    let unix = |name: &str| Socket::Unix {
        name: name.to_owned(),
        path: folder.path().join("sockets").join(name),
    };
    let tcp = |name: &str| Socket::Tcp {
        name: name.to_owned(),
        address: "127.0.0.1:0".parse().unwrap(),
    };
    let role = Role {
        name: "kinds".to_owned(),
        program: std::env::current_exe().unwrap(),
        arguments: ["as", "activation", "kinds"].map(Into::into).into(),
        environment: Vec::new(),
        sockets: vec![
            tcp("two-tcp"),
            unix("unix"),
            tcp("tcp"),
            tcp("tcp"),
            tcp("one-tcp"),
            unix("other-unix"),
            tcp("two-tcp"),
            unix("left"),
        ],
    };
    let stop = process::Stop::new().unwrap();
    let mut supervisor = Supervisor::start(vec![role], &stop).unwrap();
    let outcome: Result<(), SuperviseError> = supervisor.wait_ready(Duration::from_secs(60));
    outcome.unwrap();
}

fn the_environment_can_be_set_before_threads_only() {
    succeeds("environment", &[]);
}

fn users_are_found_by_name_and_number() {
    assert_eq!(process::uid_of("root").unwrap(), 0);
    assert_eq!(process::uid_of("65534").unwrap(), 65534);
    let error = process::uid_of("no-such-user-here").unwrap_err();
    assert!(matches!(error, ProcessError::NoSuchUser { .. }), "{error}");
}

fn diagnostics_name_the_role_and_obey_the_filter() {
    let lines = |filter: &str| {
        let mut command = harness::program(&["logs"]);
        command
            .env("CHANCERY_LOG", filter)
            .env("JOURNAL_STREAM", "1:1")
            .stderr(Stdio::piped());
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let informed = lines("info");
    assert!(informed.starts_with("logs: "), "{informed}");
    assert!(
        informed.contains("a line") && informed.contains("answer=42"),
        "{informed}"
    );
    assert!(!informed.contains("a detail"), "{informed}");
    assert_eq!(
        lines("debug")
            .lines()
            .filter(|line| line.starts_with("logs: "))
            .count(),
        2
    );
    assert_eq!(lines("error"), "");
}
