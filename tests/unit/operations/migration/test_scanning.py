"""Looking for accounts among bytes, where the limits are."""

from qwen_proxy.operations.migration.scanning import LOOK_BACK_BYTES, scan


def test_no_more_accounts_than_asked_for() -> None:
    data = b'{"email":"a"},' * 5
    assert [piece.start for piece in scan(data, most=2).pieces] == [0, 14]
    assert scan(data, most=2).unreadable == ((29, len(data)),)


def test_an_email_too_far_from_its_accounts_beginning_is_none() -> None:
    far = b'{"x":"' + b"x" * LOOK_BACK_BYTES + b'","email":"a@x.example"}'
    assert scan(far).pieces == ()
    near = b'{"x":"' + b"x" * (LOOK_BACK_BYTES - 20) + b'","email":"a@x.example"}'
    (piece,) = scan(near).pieces
    assert piece.members[b'"email"'] == b'"a@x.example"' and piece.is_whole


def test_braces_that_belong_to_nothing_end_the_looking_back() -> None:
    for step in (1, 600, 1200):
        assert scan(b"}" * step + b'"x":1,"email":"a@x.example"}').pieces == ()
        assert len(scan(b'{"a":{}' + b" " * step + b',"email":"a@x.example"}').pieces) == 1


def test_the_word_email_is_no_account_of_its_own() -> None:
    (piece,) = scan(b'{"email":"a@x.example","kind":"email","password":"email"}').pieces
    assert piece.members[b'"kind"'] == b'"email"'


def test_what_only_looks_like_a_value_ends_an_account_unfinished() -> None:
    (piece,) = scan(b'{"email":"a@x.example","cli":{"a" "b"},"password":"p"}').pieces
    assert list(piece.members) == [b'"email"'] and not piece.is_whole


def test_an_account_does_not_swallow_the_one_that_its_broken_bracket_holds() -> None:
    data = b'{"email":"a@x.example","cli":{"x":1,"more":{"email":"b@x.example","password":"p"}},"password":"q"}'
    whole = [piece.members[b'"email"'] for piece in scan(data).pieces]
    assert whole == [b'"a@x.example"', b'"b@x.example"']
