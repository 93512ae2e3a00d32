//! The live view on a terminal.

use std::io;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, Wrap};
use tokio::sync::mpsc;

use super::columns::{self, Order};
use super::view::{Role, Row, View};

const KEYS: &str = "q quit   s/S sort by the next/last column   r reverse   space pause";

/// What is shown.
pub(super) struct Screen {
    view: Option<View>,
    /// Why there is no new view.
    failure: Option<String>,
    order: Order,
    is_paused: bool,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Quit,
}

impl Screen {
    pub(super) fn new(order: Order) -> Screen {
        Screen {
            view: None,
            failure: None,
            order,
            is_paused: false,
        }
    }

    /// Shows a new view, or why there is none, unless the screen is paused.
    pub(super) fn update(&mut self, view: Result<View, String>) {
        if self.is_paused {
            return;
        }
        match view {
            Ok(mut view) => {
                self.order.sort(&mut view);
                (self.view, self.failure) = (Some(view), None);
            }
            Err(reason) => self.failure = Some(reason),
        }
    }

    /// Does what a key asks for.
    pub(super) fn handle(&mut self, event: &Event) -> Next {
        let Event::Key(KeyEvent {
            code,
            modifiers,
            kind,
            ..
        }) = event
        else {
            return Next::Stay;
        };
        if *kind == KeyEventKind::Release {
            return Next::Stay;
        }
        match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Next::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('s') | KeyCode::Right => self.order = self.order.next(true),
            KeyCode::Char('S') | KeyCode::Left => self.order = self.order.next(false),
            KeyCode::Char('r') => self.order = self.order.reversed(),
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            _ => return Next::Stay,
        }
        if let Some(view) = &mut self.view {
            self.order.sort(view);
        }
        Next::Stay
    }

    /// Draws it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let warnings = self.warnings();
        let members = self.view.as_ref().map_or(0, |view| view.members.len());
        let table_lines = u16::try_from(members + 1).unwrap_or(u16::MAX);
        let [head, table, _, notes, keys] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Max(table_lines),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        if let Some(view) = &self.view {
            frame.render_widget(members_table(view), table);
        }
        frame.render_widget(Paragraph::new(warnings).wrap(Wrap { trim: true }), notes);
        frame.render_widget(Paragraph::new(KEYS).style(Style::new().dim()), keys);
    }

    fn head(&self) -> Paragraph<'static> {
        let Some(view) = &self.view else {
            return Paragraph::new("asking the members …");
        };
        let sum = |rate: fn(&Row) -> Option<f64>| {
            let rates = view.members.iter().filter_map(rate);
            columns::rate(rates.reduce(|sum, rate| sum + rate))
        };
        let answering = view
            .members
            .iter()
            .filter(|row| row.role != Role::Unknown)
            .count();
        let revision = view
            .members
            .iter()
            .filter_map(|row| row.revision)
            .max()
            .unwrap_or(0);
        let paused = if self.is_paused { "   PAUSED" } else { "" };
        let line = format!(
            "members {answering}/{}   leader {}   revision {revision}   reads/s {}   writes/s {}   sorted by {}{paused}",
            view.members.len(),
            view.leader.as_deref().unwrap_or("none"),
            sum(|row| row.reads_per_second),
            sum(|row| row.writes_per_second),
            self.order.name(),
        );
        Paragraph::new(line).style(Style::new().bold())
    }

    fn warnings(&self) -> Vec<Line<'static>> {
        let failure = self.failure.iter().map(|reason| reason.replace('\n', " "));
        let view = self.view.iter().flat_map(|view| view.warnings.clone());
        failure
            .chain(view)
            .map(|text| Line::from(Span::styled(text, Style::new().fg(Color::Yellow))))
            .collect()
    }
}

fn members_table(view: &View) -> Table<'static> {
    let headings = columns::headings();
    let rows: Vec<Vec<String>> = view.members.iter().map(columns::cells).collect();
    let widths = (0..headings.len()).map(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        let width = cells.chain([headings[column].len()]).max().unwrap_or(0);
        Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))
    });
    let titles = headings
        .iter()
        .map(|heading| heading.replace('_', " ").to_uppercase());
    let header = TableRow::new(titles.map(Cell::from)).style(Style::new().reversed());
    let lines = view.members.iter().zip(&rows).map(|(member, cells)| {
        let style = match member.role {
            Role::Leader => Style::new().add_modifier(Modifier::BOLD),
            Role::Unknown => Style::new().fg(Color::Red),
            Role::Follower | Role::Learner => Style::new(),
        };
        TableRow::new(cells.iter().cloned().map(Cell::from)).style(style)
    });
    Table::new(lines, widths).header(header).column_spacing(1)
}

/// Reads keys on a thread of its own: the terminal can only be waited for there.
pub(super) fn events() -> mpsc::UnboundedReceiver<io::Result<Event>> {
    let (sender, events) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if sender.send(event).is_err() || is_over {
                return;
            }
        }
    });
    events
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::view::tests::view;
    use super::*;

    fn screen() -> Screen {
        Screen::new(Order::parse("name").expect("a key"))
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Next {
        screen.handle(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn lines(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
        terminal
            .draw(|frame| screen.draw(frame))
            .expect("in memory");
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| {
            row.iter()
                .map(|cell| cell.symbol())
                .collect::<String>()
                .trim_end()
                .to_owned()
        })
        .collect()
    }

    #[test]
    fn the_view_is_drawn() {
        let mut screen = screen();
        assert_eq!(lines(&screen, 40, 5)[0], "asking the members …");
        screen.update(Ok(view()));
        let lines = lines(&screen, 150, 20);
        let head =
            "members 2/3   leader m2   revision 77   reads/s -   writes/s 30   sorted by name";
        assert_eq!(lines[0], head);
        assert!(
            lines[2].starts_with("NAME ROLE     VERSION REVISION TERM LAG  IN USE"),
            "{lines:?}"
        );
        assert!(
            lines[3].starts_with("m1   follower 3.7.1   77"),
            "{lines:?}"
        );
        assert!(lines[5].starts_with("m3   ?        -"), "{lines:?}");
        assert_eq!(lines[7], "m1: 4001 log entries behind");
        assert_eq!(lines[19], KEYS);
    }

    #[test]
    fn small_terminals_do_not_panic() {
        let mut screen = screen();
        screen.update(Ok(view()));
        for (width, height) in [(1, 1), (10, 3), (300, 2), (20, 100)] {
            lines(&screen, width, height);
        }
    }

    #[test]
    fn keys_do_what_they_say() {
        let mut screen = screen();
        screen.update(Ok(view()));
        press(&mut screen, KeyCode::Char('r'));
        assert!(lines(&screen, 150, 20)[3].starts_with("m3"));
        press(&mut screen, KeyCode::Char('S'));
        assert!(lines(&screen, 150, 20)[0].ends_with("sorted by watchers"));
        press(&mut screen, KeyCode::Char(' '));
        screen.update(Err("nothing".to_owned()));
        assert!(
            lines(&screen, 150, 20)[0].ends_with("PAUSED"),
            "what is paused stays"
        );
        press(&mut screen, KeyCode::Char(' '));
        screen.update(Err("cannot list\nthe members".to_owned()));
        assert_eq!(lines(&screen, 150, 20)[7], "cannot list the members");
        assert_eq!(press(&mut screen, KeyCode::Char('x')), Next::Stay);
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Next::Quit);
        assert_eq!(press(&mut screen, KeyCode::Esc), Next::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.handle(&Event::Key(interrupt)), Next::Quit);
    }
}
