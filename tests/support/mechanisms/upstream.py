"""The mechanisms between us and upstream: proved bodies, retries, deadlines, and where credentials go."""

from .switch import Switch

_NO_SOCKET = "test_used_up.py::test_where_no_connection_can_be_opened_it_is_busy_and_not_the_network"
_NO_ADDRESS = "test_used_up.py::test_also_where_upstream_has_a_name"
_DOWNLOADS = "test_downloads.py::"
_TOKENS = "test_tokens.py::"
_ANALYTICS = "test_analytics.py::"
_PROXIES = "test_proxies.py::"
_KNOWN = f"{_DOWNLOADS}test_what_is_no_report_is_known_by_its_first_bytes"
_TABLED = f"{_ANALYTICS}test_each_trouble_is_met_as_often_as_the_table_says"
_CONNECTING = f"{_ANALYTICS}test_a_connection_that_fails_is_tried_as_often_as_the_table_says"
_LOGGED = f"{_ANALYTICS}test_libraries_log_neither_addresses_nor_headers"
_WAITS = f"{_ANALYTICS}test_waits_grow_to_a_limit_and_are_never_twice_the_same"

_GUARDS = (
    Switch("a body's end is proved", "upstream/body.py", "    if inflate:\n        inflate.finish()", "",
           f"{_DOWNLOADS}test_a_cut_or_damaged_body_is_refused_after_three_tries"),
    Switch("a gzip member that is cut behind a whole one is noticed", "upstream/body.py",
           "self._begin(), True", "self._begin(), self._fresh",
           f"{_DOWNLOADS}test_a_whole_body_is_kept_however_it_is_framed"),
    Switch("what nothing ends is refused", "upstream/analytics.py", "if not answer.framed:", "if False:",
           f"{_DOWNLOADS}test_a_body_whose_end_nothing_marks_is_refused_whole_or_not"),
    Switch("credits that nothing ends are refused", "upstream/analytics.py",
           "            _refuse_endless(answer)\n            return _json_or_text(",
           "            return _json_or_text(",
           f"{_ANALYTICS}test_credits_and_a_registry_that_nothing_ends_are_refused"),
    Switch("a registry that nothing ends is refused", "upstream/analytics.py",
           "            _refuse_endless(answer)\n            return (await", "            return (await",
           f"{_ANALYTICS}test_credits_and_a_registry_that_nothing_ends_are_refused"),
    Switch("deep JSON is refused", "upstream/analytics.py", "for _ in range(_DEEPEST):", "while True:",
           f"{_ANALYTICS}test_credits_nested_too_deeply_are_refused"),
    Switch("JSON that no parser can hold is refused", "upstream/analytics.py", "raise _too_deep() from None",
           "return text", f"{_ANALYTICS}test_credits_nested_too_deeply_are_refused"),
    Switch("bodies over the limit are refused", "upstream/body.py", "if total > limit:", "if False:",
           f"{_DOWNLOADS}test_an_export_over_the_size_limit_leaves_nothing"),
    Switch("bombs are refused by their ratio", "upstream/body.py", "total > _RATIO * received", "False",
           f"{_ANALYTICS}test_a_body_that_inflates_beyond_reason_is_refused_long_before_the_limit"),
    Switch("what is too large leads to what makes room for it", "upstream/policy.py", '"report": _LESS, ', "",
           f"{_DOWNLOADS}test_an_export_over_the_size_limit_leaves_nothing"),
    Switch("encodings nobody asked for are refused", "upstream/body.py",
           'if encoding not in ("", "identity", "gzip"):', "if False:",
           f"{_DOWNLOADS}test_an_encoding_nobody_asked_for_is_refused"),
    Switch("drips are cut off", "upstream/body.py", "if received < _SLOWEST * elapsed:", "if False:",
           f"{_DOWNLOADS}test_a_drip_is_not_waited_for"),
    Switch("a pause that is allowed is no drip", "upstream/http.py", "2 * patience",
           "patience / 2",
           f"{_DOWNLOADS}test_a_pause_that_is_allowed_is_waited_for_whatever_comes_after_it"),
    Switch("a head that never ends is cut off", "upstream/http.py",
           "fail_after(connect + patience)", "fail_after(600)",
           f"{_DOWNLOADS}test_a_head_that_never_ends_is_not_waited_for"),
    Switch("a request has a deadline", "upstream/http.py", "fail_after(within)", "fail_after(600)",
           f"{_DOWNLOADS}test_a_request_has_a_deadline_with_all_its_retries"),
    Switch("what somebody waits for has half a minute to begin", "upstream/http.py", "else min(longest, _FIRST_BYTE)",
           "else longest", f"{_ANALYTICS}test_silence_is_borne_for_half_a_minute_where_somebody_waits"),
    Switch("a report has longer to begin", "upstream/http.py",
           'longest if call == "report" else min(longest, _FIRST_BYTE)', "min(longest, _FIRST_BYTE)",
           f"{_ANALYTICS}test_a_report_may_take_longer_to_begin_than_anything_else"),
    Switch("what somebody waits for ends in a minute", "upstream/http.py",
           "else min(longest, 2 * self._settings.connect_timeout + self._patience(call))", "else longest",
           f"{_ANALYTICS}test_an_answer_that_goes_on_for_ever_is_not_waited_for"),
    Switch("a wait beyond the deadline is handed back", "upstream/http.py", " or late or", " or",
           f"{_ANALYTICS}test_a_wait_that_is_longer_than_somebody_waits_is_handed_back"),
    Switch("an empty body is no report", "upstream/analytics.py", "    if not visible(head):", "    if False:",
           f"{_DOWNLOADS}test_an_empty_body_is_no_report_the_second_time_either "
           f"{_DOWNLOADS}test_an_empty_report_is_asked_for_once_more"),
    Switch("a login page is no report", "upstream/analytics.py", 'refuse_markup(head, "report")', "",
           f"{_DOWNLOADS}test_a_body_that_is_no_report_is_refused_at_once"),
    Switch("a login page is no data", "upstream/http.py", "    refuse_markup(body, call)\n", "",
           f"{_ANALYTICS}test_a_login_page_is_no_answer_whatever_its_status"),
    Switch("markup that is no web page is no reason to sign in", "upstream/markup.py",
           "if _WEB_PAGE.search(begin):", "if True:",
           f"{_ANALYTICS}test_markup_that_is_no_web_page_asks_for_no_other_credential {_KNOWN}"),
    Switch("JSON is no report", "upstream/analytics.py", '[:1] in (b"{", b"["):', "[:1] in ():",
           f"{_DOWNLOADS}test_a_body_that_is_no_report_is_refused_at_once"),
    Switch("a file of another kind is no report", "upstream/analytics.py", "if visible(head).startswith(_OTHER_FILES):",
           "if False:", _KNOWN),
    Switch("a body is judged by enough of it", "upstream/analytics.py",
           '(ENOUGH_MARKUP if seen[:1] == b"<" else max(map(len, _OTHER_FILES)))', "1", _KNOWN),
    Switch("blank lines are not collected for ever", "upstream/analytics.py",
           "if len(head) - len(seen) > _MOST_BLANK:", "if False:",
           f"{_DOWNLOADS}test_a_body_that_is_no_report_is_refused_at_once"),
    Switch("no redirect is followed", "upstream/http.py",
           "follow_redirects=False,\n                trust_env",
           "follow_redirects=True,\n                trust_env",
           f"{_DOWNLOADS}test_each_status_is_tried_as_often_as_the_table_says"),
    Switch("a redirect to a login asks for the credential", "upstream/policy.py",
           "return _LOGIN.search(urlsplit(location).path) is not None", "return False",
           f"{_ANALYTICS}test_a_redirect_to_a_login_asks_for_the_credential_and_shows_nothing_of_where_it_leads"),
    Switch("a file of certificates that cannot be read is said", "upstream/http.py", "unread=unread()", "unread=False",
           "test_proxies.py::test_a_file_of_certificates_that_cannot_be_read_is_said"),
    Switch("also in the log", "upstream/trust.py", "        _log.warning(", "        _log.debug(",
           "test_proxies.py::test_a_file_of_certificates_that_cannot_be_read_is_said"),
    Switch("a file of certificates is read once", "upstream/trust.py", "return _made[file] if file in _made else",
           "return",
           "test_proxies.py::test_a_file_of_certificates_that_can_be_read_only_once_serves_every_call"),
    Switch("certificates are checked", "upstream/http.py",
           "verify=context_for(settings.url)", "verify=False",
           f"{_DOWNLOADS}test_a_certificate_that_nobody_vouches_for_is_not_trusted"),
    Switch("a connection without a descriptor is busy", "upstream/http.py", "if (busy := used_up(cause)) is not None:",
           "if (busy := None) is not None:", f"{_NO_SOCKET} {_NO_ADDRESS}"),
    Switch("also for the addresses of a name", "upstream/http.py",
           "for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():", "for one in ():",
           _NO_ADDRESS),
    Switch("a name that cannot be looked up for want of a thread hides nothing", "upstream/http.py",
           "if head_seen or (busy := used_up(error)) is None:", "if True:",
           "test_used_up.py::test_a_revoke_after_which_no_name_can_be_looked_up_is_not_said_to_be_undone"),
    Switch("a certificate is not asked for again", "upstream/http.py", "if _certificate(error):", "if False:",
           f"{_DOWNLOADS}test_a_certificate_that_nobody_vouches_for_is_not_trusted"),
    Switch("no cookie is stored", "upstream/http.py",
           "cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),", "",
           f"{_ANALYTICS}test_nothing_that_upstream_sets_is_sent_back"),
    Switch("plain requests go through no proxy", "upstream/proxies.py", 'asked.scheme != "https" or ', "",
           f"{_PROXIES}test_plain_requests_on_this_machine_go_through_no_proxy"),
    Switch("NO_PROXY is honoured", "upstream/proxies.py", " or proxy_bypass_environment(asked.netloc, known)", "",
           f"{_PROXIES}test_an_https_address_is_asked_through_https_proxy_unless_no_proxy_covers_it"),
    Switch("no other variable names a proxy", "upstream/http.py", "trust_env=False,\n                proxy=None",
           "trust_env=True,\n                proxy=None",
           f"{_PROXIES}test_plain_requests_on_this_machine_go_through_no_proxy"),
    Switch("no other variable names a proxy for documents", "upstream/document.py",
           "trust_env=False,\n            proxy=proxy_for(address),", "",
           f"{_PROXIES}test_plain_requests_on_this_machine_go_through_no_proxy"),
    Switch("a netrc is ignored", "upstream/http.py", "trust_env=False,\n                proxy=None",
           "auth=httpx.NetRCAuth(),\n                proxy=None",
           f"{_PROXIES}test_a_netrc_says_nothing_to_anybody"),
    Switch("a proxy that cannot be used stops the start", "upstream/proxies.py",
           "if parts is None or not _spoken(parts.scheme):", "if False:",
           "test_terminal.py::test_a_proxy_that_cannot_be_used_stops_the_start"),
    Switch("what comes behind an answer answers nothing", "upstream/http.py", "max_keepalive_connections=0",
           "max_keepalive_connections=4", f"{_ANALYTICS}test_what_comes_behind_an_answer_answers_nothing",
           (("upstream/http.py", '"Connection": "close",', ""),)),
    Switch("more than the announced length is no report", "upstream/wire.py",
           "(self._more_came(data) or await self._more_comes())", "await self._more_comes()",
           f"{_DOWNLOADS}test_a_body_that_is_longer_than_announced_is_refused"),
    Switch("a connection is read to its end", "upstream/wire.py", " or await self._more_comes()", "",
           f"{_DOWNLOADS}test_a_body_that_is_longer_than_announced_is_refused"),
    Switch("another answer is no end of a head", "upstream/wire.py", "not self._last.endswith(end) or ", "",
           f"{_DOWNLOADS}test_a_body_that_is_longer_than_announced_is_refused"),
    Switch("upstream is told to end the connection", "upstream/http.py", '"Connection": "close"',
           '"Connection": "keep-alive"', f"{_DOWNLOADS}test_a_body_that_is_longer_than_announced_is_refused"),
    Switch("a head is bounded", "upstream/wire.py", "self._in_head and self._head > _LARGEST_HEAD", "False",
           f"{_DOWNLOADS}test_a_head_that_no_server_means_is_refused"),
    Switch("headers are bounded", "upstream/wire.py", "len(headers) > _MOST_HEADERS or ", "",
           f"{_DOWNLOADS}test_a_head_that_no_server_means_is_refused"),
    Switch("a large head that comes at once is refused too", "upstream/wire.py",
           " or sum(len(name) + len(value) for name, value in headers) > _LARGEST_HEAD", "",
           f"{_DOWNLOADS}test_a_head_that_no_server_means_is_refused"),
    Switch("cookie and bearer never meet", "upstream/http.py", "headers={name: value}",
           'headers={name: value, "Cookie": value, "Authorization": value}',
           f"{_TOKENS}test_cookie_and_bearer_never_meet_and_go_nowhere_else"),
    Switch("the cookie stays with the tokens", "upstream/analytics.py",
           'get(credential=("Authorization", f"Bearer {secret}"))', "get(credential=self._cookie())",
           f"{_TOKENS}test_cookie_and_bearer_never_meet_and_go_nowhere_else"),
    Switch("libraries do not log addresses", "upstream/http.py",
           'logging.getLogger("httpx").setLevel(logging.WARNING)', "", _LOGGED),
    Switch("libraries do not log headers", "upstream/http.py",
           'logging.getLogger("httpcore").setLevel(logging.WARNING)', "", _LOGGED),
    Switch("retries have a budget", "upstream/http.py", " or not self._budget.take()", "",
           f"{_ANALYTICS}test_many_calls_together_retry_no_more_than_ten_times"),
    Switch("callers share the budget of retries", "surface/app.py", "Http(settings, upstream, shared.budget)",
           "Http(settings, upstream)", "test_http.py::test_callers_share_the_retries_of_a_minute"),
    Switch("the budget is ten a minute", "upstream/policy.py", "if len(self.spent) >= _BUDGET:", "if False:",
           f"{_DOWNLOADS}test_retries_of_the_last_minute_count_and_older_ones_do_not"),
    Switch("the budget is renewed", "upstream/policy.py", "now - self.spent[0] > _PER", "False",
           f"{_DOWNLOADS}test_retries_of_the_last_minute_count_and_older_ones_do_not"),
    Switch("a long wait is handed back", "upstream/http.py", "if wait > LONGEST_WAIT or", "if",
           f"{_ANALYTICS}test_a_wait_that_upstream_asks_for_is_kept_to"),
    Switch("waits are bounded in all", "upstream/http.py", " or waited > MOST_WAITING", "",
           f"{_ANALYTICS}test_a_wait_that_upstream_asks_for_is_kept_to"),
    Switch("a short wait is kept to", "upstream/http.py",
           "backoff(self._settings.retry_base_delay, sent) if failed.wait is None else failed.wait",
           "0.0 if (failed.wait or 0) <= LONGEST_WAIT else failed.wait",
           f"{_ANALYTICS}test_a_wait_that_upstream_asks_for_is_kept_to"),
    Switch("who is refused hears how long to wait", "upstream/policy.py",
           "later, retryable=True,\n                  after=_told(wait))", "later, retryable=True)",
           f"{_ANALYTICS}test_a_wait_that_is_not_waited_for_is_told"),
    Switch("nobody is told to wait for ever", "upstream/policy.py", "else min(wait, _LONGEST_TOLD)", "else wait",
           f"{_ANALYTICS}test_a_wait_that_is_not_waited_for_is_told"),
    Switch("a date to wait for is understood", "upstream/policy.py", "else _until(header)", "else -1.0",
           f"{_DOWNLOADS}test_a_wait_until_a_date_is_understood_and_nonsense_is_not_waited_for"),
    Switch("waits are spread", "upstream/policy.py", "random.uniform(0, min(_CAP",
           "random.uniform(min(_CAP, base * 2 ** (sent - 1)), min(_CAP", _WAITS),
    Switch("waits do not grow for ever", "upstream/policy.py", "uniform(0, min(_CAP,", "uniform(0, max(_CAP,", _WAITS),
)  # fmt: skip

# The retry table as it stands; the switches let one call of a row send one request more.
_CALLS = ("report", "read", "list", "create", "revoke")
_TABLE = {
    "unsent": (4, 4, 4, 2, 3), "silent": (3, 3, 3, 1, 3), "late": (2, 1, 1, 1, 1), "broken": (3, 3, 3, 1, 1),
    "misread": (1, 1, 1, 1, 1), "redirect": (1, 1, 1, 1, 1), "refused": (1, 1, 1, 1, 1), "conflict": (1, 1, 1, 1, 1),
    "asked_to_wait": (3, 3, 3, 1, 2), "busy": (3, 3, 3, 1, 3), "failing": (2, 3, 3, 1, 3), "gateway": (4, 4, 4, 1, 3),
    "odd": (2, 2, 2, 1, 2),
}  # fmt: skip
_MORE = (  # a create may never be sent again; of the other columns those rows in which each differs from its neighbours
    *((outcome, "create") for outcome in _TABLE),
    *((outcome, "report") for outcome in ("unsent", "late", "failing", "gateway", "refused")),
    *((outcome, "read") for outcome in ("failing", "misread", "late")),
    *((outcome, "list") for outcome in ("broken", "redirect", "late")),
    *((outcome, "revoke") for outcome in ("broken", "asked_to_wait", "gateway", "silent", "late")),
)


def _row(outcome: str, most: tuple[int, ...]) -> str:
    report, read, listed, create, revoke = most
    name = f'"{outcome}":'
    return f"    {name:<17}({report},     {read},   {listed},   {create},     {revoke}),"


def _once_more(outcome: str, call: str) -> Switch:
    most = _TABLE[outcome]
    more = tuple(number + (one == call) for number, one in zip(most, _CALLS, strict=True))
    name = f"a {call} is sent {most[_CALLS.index(call)]} times at most: {outcome}"
    tests = f"{_CONNECTING if outcome == 'unsent' else _TABLED}[{call}]"
    return Switch(name, "upstream/policy.py", _row(outcome, most), _row(outcome, more), tests)


UPSTREAM = (*_GUARDS, *(_once_more(outcome, call) for outcome, call in _MORE))
