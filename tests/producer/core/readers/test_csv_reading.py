"""CSV as others write it: dialects, quotes in odd places, rows that are broken."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.specs import FileFormat, ReadOptions
from labelmill.core.readers import BadRow, Source, detect_sources, read_rows, read_text_blocks
from labelmill.core.readers.formats.csv_cells import cells_of_row

CELLS = st.text(st.one_of(st.sampled_from(',;\t|"\r\n ab'), st.characters(exclude_categories=["Cs"])), max_size=8)
DELIMITERS = st.sampled_from(",;\t|")
ODD = st.text(st.sampled_from('ab,"\n '), max_size=60)


def source_of(content: str | bytes, **form: Any) -> Source:
    data = content.encode() if isinstance(content, str) else content
    return Source(io.BytesIO(data), "a.csv", FileFormat(kind="csv", **form))


def read(source: Source, *columns: str) -> tuple[list[tuple[str, ...]], list[tuple[int, int]]]:
    """The rows' cells, and where each bad row begins and how many lines it takes up."""
    bad: list[BadRow] = []
    rows = [
        tuple(row.values[column] for column in columns)
        for row in read_rows([source], columns=columns, on_bad_row=bad.append)
    ]
    return rows, [(one.line, one.lines) for one in bad]


def detected(content: str | bytes, *columns: str, name: str = "<stdin>", **options: Any) -> Source:
    data = content.encode() if isinstance(content, str) else content
    (source,) = detect_sources([io.BytesIO(data)], ReadOptions(**options), columns)
    return Source(source.input, name, source.format)


@st.composite
def tables(draw: st.DrawFn, *, min_width: int = 1) -> tuple[list[str], list[list[str]]]:
    width = draw(st.integers(min_width, 4))
    row = st.lists(CELLS, min_size=width, max_size=width)
    return [f"column {number}" for number in range(width)], draw(st.lists(row, min_size=1, max_size=8))


def written(header: list[str], rows: list[list[str]], **dialect: Any) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, **dialect).writerows([header, *rows])
    return stream.getvalue()


@given(
    table=tables(),
    delimiter=DELIMITERS,
    # with another line break the module leaves a carriage return in a cell without quotes, and misreads it itself
    style=st.sampled_from(
        [
            (csv.QUOTE_MINIMAL, "\r\n"),
            (csv.QUOTE_ALL, "\r\n"),
            (csv.QUOTE_ALL, "\n"),
            (csv.QUOTE_ALL, "\r"),
            (csv.QUOTE_NONNUMERIC, "\n"),
        ]
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_what_pythons_csv_module_writes_is_read_back_exactly(
    table: tuple[list[str], list[list[str]]], delimiter: str, style: tuple[Any, str], encoding: str
) -> None:
    header, rows = table
    quoting, line_end = style
    content = written(header, rows, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    source = detected(content.encode(encoding), *header, delimiter=delimiter, quoting="standard")
    assert read(source, *header) == ([tuple(row) for row in rows], [])


@given(table=tables(min_width=2), delimiter=DELIMITERS, quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_the_delimiter_is_found_out(table: tuple[list[str], list[list[str]]], delimiter: str, quoting: Any) -> None:
    header, rows = table
    source = detected(written(header, rows, delimiter=delimiter, quoting=quoting), header[-1])
    assert source.format.delimiter == delimiter


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ("text\tlabel\tcity, country\na\tb\tRome, Italy\n", ["text"], "\t"),
        ('id;text;"size, weight"\n1;a;"3, 4"\n', ["text"], ";"),
        ("sep=|\nid|text\n1|a;b\n", ["text"], "|"),
        ("\n,,,\nid,text\n1,a;b\n", ["text"], ","),
        ("text,label;x\na;b,c;d\n", ["other"], ","),
        ("text\na;b\nc;d\n", ["text"], ","),
        ("text,note; remark\na,b\nc,d\n", ["text"], ","),
        ('text;label\n"a\n;b";c\nd;e\n', ["text"], ";"),
        ("a,b;c,d\n1,2;3,4\n", ["b;c"], ","),
        ("a|b,c|d\n1|2,3|4\n", [], "|"),
        ("a|b,c\n1|2,3\n", [], ","),
    ],
)
def test_a_delimiter_is_taken_for_one_only_where_header_and_rows_agree(
    content: str, columns: list[str], expected: str
) -> None:
    assert detected(content, *columns).format.delimiter == expected


def test_an_option_overrides_what_would_be_found_out() -> None:
    assert read(detected("a;b,c\n1;2,3\n", "a", delimiter=";"), "a", "b,c") == ([("1", "2,3")], [])
    assert read(detected('a,b\n"1,2"\n', "a", quoting="none"), "a", "b") == ([('"1', '2"')], [])
    assert read(detected('a\tb\n"1\n2"\t3\n', "a", quoting="standard"), "a", "b") == ([("1\n2", "3")], [])
    assert read(detected("a,b\n\xe4,1\n".encode("latin-1"), "a", encoding="latin-1"), "a") == ([("\xe4",)], [])


def test_spaces_around_a_quoted_cell_do_not_count_and_all_others_do() -> None:
    content = 'id, text ,label\n1, "b, c" ,x\n2, b ,"x"\n 3,  "d\n e"  , "x" \n4,"f" ,x\n'
    rows, bad = read(detected(content, "text"), "id", "text", "label")
    assert rows == [("1", "b, c", "x"), ("2", " b ", "x"), (" 3", "d\n e", "x"), ("4", "f", "x")]
    assert bad == []


def test_columns_that_nobody_asks_for_may_have_any_name() -> None:
    content = "id,text,,notes,notes,\n1,a,,x,y,\n2,b,,x,y\n"
    assert read(source_of(content), "text", "id") == ([("a", "1"), ("b", "2")], [])
    with pytest.raises(InvalidInput, match="has 2 columns named 'notes': rename all but one"):
        read(source_of(content), "text", "notes")


@given(st.lists(st.lists(st.text(st.sampled_from('ab" '), min_size=1), min_size=2, max_size=2), min_size=1))
def test_every_line_of_tsv_is_a_row_whatever_quotes_it_has(rows: list[list[str]]) -> None:
    content = "".join(f"{text}\t{label}\n" for text, label in [["text", "label"], *rows])
    try:
        found, bad = read(source_of(content, delimiter="\t", quoting="line"), "text", "label")
    except InvalidInput:  # a cell of several lines, by its looks
        return
    assert len(found) + len(bad) == len(rows)
    plain = [tuple(row) for row in rows if '"' not in "".join(row)]
    assert [row for row in found if row in plain] == plain


def test_in_tsv_a_quote_opens_a_cell_only_if_it_is_closed_on_the_line() -> None:
    content = 'text\tlabel\n"one ""1"""\t"x"\n"two\tx\nthree"\tx\n"four" said\tx\n"five\t5"\tx\n'
    rows, bad = read(source_of(content, delimiter="\t", quoting="line"), "text", "label")
    assert rows == [('one "1"', "x"), ('"two', "x"), ('three"', "x"), ('"four" said', "x"), ("five\t5", "x")]
    assert bad == []


def test_a_quoted_cell_of_several_lines_in_tsv_is_not_taken_apart() -> None:
    content = 'id\ttext\n1\t"one\n2"\n3\tthree\n'
    with pytest.raises(InvalidInput, match="seems to begin on line 2 and to end on line 3; say quoting=standard"):
        read(source_of(content, delimiter="\t", quoting="line"), "text")


@given(ODD)
@example(', ""a')
def test_every_line_belongs_to_one_row_or_one_bad_row(body: str) -> None:
    content = f"a,b\n{body}"
    bad: list[BadRow] = []
    try:
        rows = list(read_rows([source_of(content)], columns=["a", "b"], on_bad_row=bad.append))
    except InvalidInput:
        return
    lines = list(io.StringIO(content, newline=""))
    starts = sorted([(row.line, 0) for row in rows] + [(one.line, one.lines) for one in bad])
    covered = {1}
    for (start, size), following in zip(starts, [*[one[0] for one in starts[1:]], len(lines) + 1], strict=True):
        end = start + size if size else following
        assert end <= following
        covered |= set(range(start, end))
    assert all(lines[number - 1].strip("\n") == "" for number in range(1, len(lines) + 1) if number not in covered)
    for row in rows:
        rest = iter(lines[row.line - 1 :])
        assert cells_of_row(partial(next, rest, None), ",") == list(row.values.values())


@given(
    st.lists(st.tuples(st.sampled_from(["plain", "all", "text", "lines"]), st.booleans()), min_size=1, max_size=12),
    st.sampled_from(["", "é ", '5" wide ']),
)
def test_a_quote_that_is_never_closed_costs_its_own_row_or_the_file_is_refused(
    kinds: list[tuple[str, bool]], extra: str
) -> None:
    lines, texts, broken = ["id,text,label"], [], []
    at = 2
    for number, (kind, is_broken) in enumerate(kinds):
        text = f"{extra}text {number}"
        quoted = text.replace('"', '""')
        if is_broken:
            broken.append(at)
            lines.append(f'{number},"text {number},x')
        elif kind == "plain":
            lines.append(f"{number},{text},x")
        elif kind == "all":
            lines.append(f'"{number}","{quoted}","x"')
        elif kind == "text":
            lines.append(f'{number},"{quoted}",x')
        else:
            lines.append(f'{number},"{quoted}\nmore, of it",x')
            text += "\nmore, of it"
        if not is_broken:
            texts.append((text,))
        at += 2 if kind == "lines" and not is_broken else 1
    try:
        rows, bad = read(source_of("\n".join(lines) + "\n"), "text")
    except InvalidInput:
        assert broken
        return
    assert rows == texts
    assert bad == [(line, 1) for line in broken]


WORDS = st.lists(st.sampled_from(["a", "b,", '"c"', '"c" d', "e, f", 'g "h i"']), min_size=1, max_size=3)
TEXTS = st.lists(WORDS, min_size=2, max_size=4)  # lines of words


@given(st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from(["", "1,"]))
def test_no_part_of_a_cell_with_bare_quotes_is_taken_for_a_row(cells: list[list[list[str]]], before: str) -> None:
    """Whoever puts quotes around a cell and does not double those in it gets whole rows, bad rows, or a refusal."""
    texts = ["so " + "\n".join(" ".join(words) for words in lines) for lines in cells]
    header = "id,text,label" if before else "text,label"
    body = "".join(f'{before}"{text}",label\n' for text in texts)
    content = f"{header}\n{before}first,x\n{body}{before}last,x\n"
    try:
        rows, _ = read(source_of(content), "text")
    except InvalidInput:
        return
    assert {row[0] for row in rows} <= {"first", "last", *texts}


def test_an_unclosed_quote_loses_one_row_and_says_so() -> None:
    lines = ["id,text", *(f"{n},row {n}" for n in range(1, 500))]
    lines[20] = '20,"half quoted 20'
    rows, bad = read(source_of("\n".join(lines)), "text")
    assert [row[0] for row in rows] == [f"row {n}" for n in range(1, 500) if n != 20]
    assert bad == [(21, 1)]


@pytest.mark.parametrize(
    "later",
    ['9,"the invoice, for 103",x', '9,", for 103",x', '9,"",x', '"9",b,x', '9,"two\nlines",x', '9,"""so"" he",x'],
)
def test_a_quoted_cell_further_down_does_not_end_a_quote_that_was_left_open(later: str) -> None:
    content = f'id,text,label\n1,one,x\n2,"two,x\n3,three,x\n{later}\n10,ten,x\n'
    rows, bad = read(source_of(content), "id")
    assert [row[0] for row in rows] == ["1", "3", "9", "10"]
    assert bad == [(3, 1)]


def test_a_row_of_another_width_takes_its_lines_with_it() -> None:
    content = 'text,label\n"a\nplain, line\nb",x,too many\nc,y\n'
    rows, bad = read(source_of(content), "text")
    assert (rows, bad) == ([("c",)], [(2, 3)])


def test_text_that_is_not_in_its_encoding_names_the_line_and_the_remedy() -> None:
    bad: list[BadRow] = []
    source = detected("id;text\n1;plain\n2;Rechnung \xfcber 5\n".encode("cp1252"), "text")
    (block,) = read_text_blocks([source], "text", None, on_bad_row=bad.append)
    assert block.texts == ["plain"]
    assert str(bad[0]) == "<stdin>:3: not UTF-8"
    assert f"save the file as UTF-8, or name its encoding, such as {named('encoding', 'cp1252')}" in bad[0].remedy
    with pytest.raises(InvalidInput, match=r"header line of <stdin> \(line 1\) is not UTF-8: save .* encoding=cp1252"):
        read(detected("id;gr\xf6\xdfe\n1;a\n".encode("cp1252"), "id"), "id")


def test_several_broken_rows_cost_no_others() -> None:
    broken = {
        4: '4,"half',
        9: '9,"the "best" one"',
        12: '12,"half, too',
        15: '15,"my "own" words" again',
        20: '20,"a"b',
    }
    lines = ["id,text", *(broken.get(n, f'{n},"row, ""{n}"""' if n % 3 else f'{n},row 5" {n}') for n in range(1, 30))]
    rows, bad = read(source_of("\n".join(lines)), "id")
    assert [int(row[0]) for row in rows] == [n for n in range(1, 30) if n not in broken]
    assert [line for line, _ in bad] == [n + 1 for n in broken]
