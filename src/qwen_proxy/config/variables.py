"""The variables themselves: one row each. docs/configuration.md and `.env.example` are checked against this table."""

from typing import Final

from msgspec import Struct

from qwen_proxy.config import choices
from qwen_proxy.config.backend_settings import ANY_SERVER, BACKENDS, address_of, keys_of
from qwen_proxy.config.values import (
    ACCOUNTS,
    API_KEYS,
    BACKEND_ORDER,
    BASE_URL,
    BOOLEAN,
    CLEANUP,
    FILE,
    FOLDER,
    GGUF,
    HEADER_VALUE,
    HEADERS,
    HOST,
    HOST_NAMES,
    MEGABYTES,
    MODEL_MAP,
    MODEL_ROUTES,
    NETWORKS,
    OPTIONAL_SIZE,
    ORIGINS,
    OTHER_NAMES,
    PREFIX,
    PROXY,
    REDIS,
    SECRET,
    SIZE,
    TOOL_FORMS,
    VERSION,
    WORD,
    WORDS,
    WORKERS,
    Parser,
    choice,
    decimal,
    whole,
)

MOST_OF_A_LIMIT: Final = 10**12


class Variable(Struct, frozen=True):
    """`field` is its name in Settings; `default` is text, read like a given value; `secret` is never shown.

    is_live: an admin may change it while the server runs (`config.runtime`). Its value is shown in the history of
    settings, so it is none that may hold a secret.
    """

    name: str
    field: str
    parser: Parser
    default: str
    meaning: str
    secret: bool = False
    is_live: bool = False


class Group(Struct, frozen=True):
    title: str
    variables: tuple[Variable, ...]


_SERVICE: Final = Group(
    "Service",
    (
        Variable("LISTEN_ADDRESS", "host", HOST, "127.0.0.1", "Address to listen on; 0.0.0.0 or :: for every network"),
        Variable("SERVICE_PORT", "port", whole(0, 65535), "3000", "Port to listen on; 0 takes a free one"),
        Variable(
            "API_KEY",
            "api_keys",
            API_KEYS,
            "",
            "API keys, the first is the admin key; unset: one is generated into DATA_DIR/admin.key",
            secret=True,
        ),
        Variable("CORS_ORIGINS", "cors_origins", ORIGINS, "", "Origins whose pages may call the API; unset: none"),
        Variable(
            "ADMIN_HOSTS",
            "admin_hosts",
            HOST_NAMES,
            "",
            "Names under which browsers may sign in to the admin page, besides localhost, IP addresses, LISTEN_ADDRESS",
        ),
        Variable(
            "TRUSTED_PROXIES",
            "trusted_proxies",
            NETWORKS,
            "",
            "Reverse proxies before this server whose X-Forwarded-For is believed; unset: none",
        ),
        Variable(
            "WRONG_KEYS_PER_ADDRESS",
            "wrong_keys_per_address",
            whole(0, 100000),
            "10",
            "Wrong keys from one client address to sign-ins and admin routes in ten minutes, then 429; 0 for no limit",
        ),
        Variable(
            "MODELS_OPEN", "models_open", BOOLEAN, "true", "Whether GET /models answers without a key", is_live=True
        ),
        Variable("MAX_BODY_BYTES", "max_body_bytes", SIZE, "8M", "Largest request body that is read"),
        Variable(
            "REQUEST_READ_SECONDS",
            "request_read_seconds",
            decimal(0.1, 3600),
            "60",
            "How long a client may take to send a request's headers, and as long again for its body",
        ),
        Variable(
            "REQUEST_DEADLINE_SECONDS",
            "request_deadline_seconds",
            decimal(1, 86400),
            "1800",
            "Longest time for one request, all its tries together",
        ),
        Variable(
            "HEADER_COMMIT_SECONDS",
            "header_commit_seconds",
            decimal(0, 3600),
            "15",
            "A stream's headers go out after so long without content; before, a failure has its true status",
        ),
        Variable(
            "HEARTBEAT_SECONDS",
            "heartbeat_seconds",
            decimal(0.05, 3600),
            "15",
            "A silent stream gets a heartbeat after so long",
        ),
    ),
)

_ACCOUNTS: Final = Group(
    "Accounts",
    (
        Variable(
            "ACCOUNTS",
            "accounts",
            ACCOUNTS,
            "",
            "Accounts of chat.qwen.ai: email:password or email:password|proxy, with commas between",
            secret=True,
        ),
        Variable(
            "ACCOUNT_CONCURRENCY",
            "account_concurrency",
            whole(0, 1000),
            "2",
            "Replies at a time per account; 0 for no limit",
            is_live=True,
        ),
        Variable(
            "ACCOUNT_STRATEGY",
            "account_strategy",
            choice(choices.Strategy),
            "least_loaded",
            "Which account is taken next, among those of the highest priority",
            is_live=True,
        ),
        Variable(
            "QUEUE_SECONDS",
            "queue_seconds",
            decimal(0, 3600),
            "60",
            "How long a request waits for a free account",
            is_live=True,
        ),
        Variable(
            "SIGNIN_SPACING_SECONDS",
            "signin_spacing_seconds",
            decimal(0, 3600),
            "10",
            "Time between two sign-ins through one exit address",
            is_live=True,
        ),
        Variable(
            "REFRESH_BEFORE_HOURS",
            "refresh_before_hours",
            decimal(0, 720),
            "24",
            "A token is renewed so long before its end",
            is_live=True,
        ),
        Variable(
            "AUTO_REFRESH",
            "auto_refresh",
            BOOLEAN,
            "true",
            "Renew tokens before their end; false: an account is signed in again once its token has ended",
            is_live=True,
        ),
        Variable(
            "AUTO_REFRESH_INTERVAL",
            "auto_refresh_interval_seconds",
            whole(1, 31536000),
            "21600",
            "Accepted from the original; without effect: each token is renewed at its own time",
            is_live=True,
        ),
        Variable(
            "CHALLENGE_REST_SECONDS",
            "challenge_rest_seconds",
            decimal(0.1, 3600),
            "60",
            "First rest of an account or exit that was asked for a human; doubles up to an hour",
            is_live=True,
        ),
        Variable(
            "BATCH_LOGIN_CONCURRENCY",
            "batch_login_concurrency",
            whole(1, 20),
            "5",
            "Accounts added at once; sign-ins through one exit stay one at a time",
            is_live=True,
        ),
    ),
)

_KEYS: Final = Group(
    "Keys and limits",
    (
        Variable(
            "KEY_RPM",
            "key_rpm",
            whole(0, MOST_OF_A_LIMIT),
            "300",
            "Requests a minute of a key; 0 for no limit",
            is_live=True,
        ),
        Variable(
            "KEY_CONCURRENCY",
            "key_concurrency",
            whole(0, MOST_OF_A_LIMIT),
            "20",
            "Requests at a time of a key; 0 for no limit",
            is_live=True,
        ),
        Variable(
            "KEY_TPM",
            "key_tpm",
            whole(0, MOST_OF_A_LIMIT),
            "0",
            "Tokens a minute of a key; 0 for no limit",
            is_live=True,
        ),
        Variable(
            "KEY_TOKENS_PER_DAY",
            "key_tokens_per_day",
            whole(0, MOST_OF_A_LIMIT),
            "0",
            "Tokens a day (UTC) of a key; 0 for no limit",
            is_live=True,
        ),
        Variable(
            "KEY_TOKENS_PER_MONTH",
            "key_tokens_per_month",
            whole(0, MOST_OF_A_LIMIT),
            "0",
            "Tokens a calendar month (UTC) of a key; 0 for no limit",
            is_live=True,
        ),
        Variable(
            "KEY_API_TOKENS_PER_DAY",
            "key_api_tokens_per_day",
            whole(0, MOST_OF_A_LIMIT),
            "0",
            "Tokens a day (UTC) of a key on backends that are APIs; 0 for no limit",
            is_live=True,
        ),
        Variable(
            "KEY_TOKEN_RESERVE",
            "key_token_reserve",
            whole(1, 1_000_000),
            "1024",
            "Tokens reserved for a reply whose request names no max_tokens, where tokens are limited",
            is_live=True,
        ),
    ),
)

_WORKERS: Final = Group(
    "Worker processes",
    (
        Variable("PM2_INSTANCES", "workers", WORKERS, "1", "Worker processes on one port; max is one per processor"),
        Variable(
            "PM2_MAX_MEMORY",
            "max_memory_bytes",
            OPTIONAL_SIZE,
            "1G",
            "A worker above it is replaced, after its requests; 0 for no limit",
        ),
        Variable(
            "DRAIN_SECONDS",
            "drain_seconds",
            decimal(0, 86400),
            "1800",
            "How long a replaced worker may finish its requests",
        ),
        Variable(
            "SHUTDOWN_GRACE_SECONDS",
            "shutdown_grace_seconds",
            decimal(0, 86400),
            "30",
            "How long requests may finish when the server stops",
        ),
    ),
)

_CHAT: Final = Group(
    "Chat",
    (
        Variable(
            "OUTPUT_THINK", "output_think", BOOLEAN, "true", "Whether reasoning is delivered at all", is_live=True
        ),
        Variable(
            "LEGACY_REASONING_IN_CONTENT",
            "legacy_reasoning_in_content",
            BOOLEAN,
            "false",
            "Reasoning inside <think>…</think> in the content, instead of reasoning_content",
            is_live=True,
        ),
        Variable(
            "SEARCH_INFO_MODE",
            "search_info",
            choice(choices.SearchInfo),
            "text",
            "How search results are told in the text of a reply; annotations carry them in any case",
            is_live=True,
        ),
        Variable(
            "STRICT_FIELDS",
            "strict_fields",
            BOOLEAN,
            "false",
            "Refuse request fields that have no effect here, instead of naming them in a reply header",
            is_live=True,
        ),
        Variable("MAX_CHOICES", "max_choices", whole(1, 128), "8", "Largest n of a request", is_live=True),
        Variable(
            "MAX_PROMPT_BYTES",
            "max_prompt_bytes",
            SIZE,
            "120K",
            "Largest prompt; the upstream challenges bodies near 128 KiB",
        ),
        Variable(
            "CHAT_RETRY_COUNT",
            "chat_retry_count",
            whole(0, 10),
            "1",
            "Further tries after a failure; 0 for none",
            is_live=True,
        ),
        Variable(
            "CHAT_RETRY_BACKOFF_MS",
            "chat_retry_backoff_ms",
            whole(0, 60000),
            "400",
            "Milliseconds before another try",
            is_live=True,
        ),
        Variable(
            "ASK_AGAIN_COUNT",
            "ask_again_count",
            whole(0, 2),
            "2",
            "Further tries in which a model is told that its call or its JSON was wrong; 0 for none",
            is_live=True,
        ),
        Variable(
            "MAX_TOOL_RESULT_BYTES",
            "max_tool_result_bytes",
            SIZE,
            "24K",
            "Largest result of a tool in a prompt; longer ones are cut in their middle",
            is_live=True,
        ),
        Variable(
            "TOOL_FORMS_OFF",
            "tool_forms_off",
            TOOL_FORMS,
            "",
            "Forms of calls, besides the one that is taught, that are not read out of replies",
            is_live=True,
        ),
        Variable(
            "STREAM_STRUCTURED_OUTPUT",
            "stream_structured_output",
            BOOLEAN,
            "false",
            "Send JSON that was demanded as it comes, without a second try where it turns out wrong",
            is_live=True,
        ),
        Variable(
            "CHAT_CLEANUP",
            "cleanup_minutes",
            CLEANUP,
            "delete",
            "Upstream chats: delete after use, keep, or delete after so many minutes",
            is_live=True,
        ),
    ),
)

_MODELS: Final = Group(
    "Models",
    (
        Variable(
            "SIMPLE_MODEL_MAP",
            "simple_model_map",
            BOOLEAN,
            "false",
            "List base models only, without -thinking, -search and the like",
            is_live=True,
        ),
        Variable(
            "MODEL_NAMES",
            "model_names",
            choice(choices.ModelNames),
            "display",
            "Which name is a listed model's id: the readable one (display) or the upstream's (id)",
            is_live=True,
        ),
        Variable(
            "MODEL_MAP",
            "model_map",
            MODEL_MAP,
            "",
            "Other names for models, with wildcards; the first that fits holds",
            is_live=True,
        ),
        Variable(
            "MODEL_ROUTES",
            "model_routes",
            MODEL_ROUTES,
            "",
            "Where a model name leads: backends' models in the order in which they are tried, or drawn by weight",
            is_live=True,
        ),
        Variable(
            "OTHER_MODEL_NAMES",
            "other_model_names",
            OTHER_NAMES,
            "auto",
            "What claude-*, gpt-*, gemini-* and the like mean where nothing else says it: a model of ours, or off",
            is_live=True,
        ),
        Variable(
            "BACKEND_ORDER",
            "backend_order",
            BACKEND_ORDER,
            "web",
            "Which backends come first where several have a model; the others follow",
            is_live=True,
        ),
        Variable(
            "OVERFLOW_SECONDS",
            "overflow_seconds",
            decimal(0, 3600),
            "2",
            "How long a request waits for a free account while another backend could take it",
            is_live=True,
        ),
        Variable(
            "MODELS_CACHE_TTL",
            "models_cache_ttl_seconds",
            decimal(0, 31536000),
            "3600",
            "Seconds until the model list is fetched again; 0 for never",
            is_live=True,
        ),
    ),
)

_UPSTREAM: Final = Group(
    "Upstream",
    (
        Variable(
            "QWEN_CHAT_PROXY_URL",
            "chat_base_url",
            BASE_URL,
            "https://chat.qwen.ai",
            "Address of the chat site, or of a reverse proxy before it",
        ),
        Variable(
            "QWEN_CLI_PROXY_URL",
            "cli_base_url",
            BASE_URL,
            "https://portal.qwen.ai",
            "Address of the Qwen Code service, or of a reverse proxy before it",
        ),
        Variable(
            "QWEN_CODE_ENABLED",
            "qwen_code_enabled",
            BOOLEAN,
            "false",
            "Serve by Qwen Code's sign-ins too; its free tier ended on 2026-04-15, free accounts are refused since",
        ),
        Variable(
            "QWEN_CODE_MODELS",
            "qwen_code_models",
            WORDS,
            "coder-model,qwen3-coder-plus,qwen3-coder-flash,qwen3.6-plus",
            "The models of Qwen Code: its service has no list; older ones had vision-model too",
        ),
        Variable(
            "QWEN_CODE_VERSION",
            "qwen_code_version",
            VERSION,
            "0.24.0",
            "The version of the official client that Qwen Code's service is told",
        ),
        Variable(
            "PROXY_URL",
            "proxy_url",
            PROXY,
            "",
            "Outbound proxy for every call of accounts without one of their own; unset: none",
        ),
        Variable("CA_FILE", "ca_file", FILE, "", "Certificates (PEM) to trust besides the usual ones"),
        Variable(
            "CONNECT_TIMEOUT_SECONDS", "connect_timeout_seconds", decimal(0.1, 3600), "30", "Limit for a connection"
        ),
        Variable(
            "HEADERS_TIMEOUT_SECONDS",
            "headers_timeout_seconds",
            decimal(0.1, 3600),
            "60",
            "Limit until an answer's headers",
        ),
        Variable(
            "IDLE_TIMEOUT_SECONDS",
            "idle_timeout_seconds",
            decimal(0.1, 86400),
            "240",
            "Limit for silence in a stream; thinking may be silent for 180 seconds",
        ),
        Variable("QWEN_WEB_VERSION", "web_version", HEADER_VALUE, "", "The version header; unset: the built-in one"),
        Variable("QWEN_USER_AGENT", "user_agent", HEADER_VALUE, "", "The User-Agent header; unset: the built-in one"),
        Variable(
            "ACCEPT_LANGUAGE",
            "accept_language",
            HEADER_VALUE,
            "",
            "The Accept-Language header; unset: the built-in one",
        ),
        Variable(
            "QWEN_EXTRA_HEADERS",
            "extra_headers",
            HEADERS,
            "",
            "Further headers of every call to the chat site, as a JSON object",
            secret=True,
        ),
        Variable(
            "SEND_BEARER", "send_bearer", BOOLEAN, "true", "Send the token as Authorization too, besides the cookie"
        ),
        Variable(
            "SIMULATOR",
            "simulator",
            choice(choices.SimulatorUse),
            "auto",
            "Use the built-in simulated upstream; auto: with neither ACCOUNTS nor QWEN_CHAT_PROXY_URL set",
        ),
    ),
)

_BACKENDS: Final = Group(
    "Backends",
    (
        Variable(
            "BACKENDS",
            "backends",
            BACKENDS,
            "",
            "Other servers that speak OpenAI's API, in full: a JSON array, or a file that holds one",
            secret=True,
        ),
        Variable(
            "MODEL_STUDIO_API_KEY",
            "model_studio",
            keys_of("model-studio"),
            "",
            "API keys of Alibaba Cloud Model Studio, international",
            secret=True,
        ),
        Variable(
            "MODEL_STUDIO_CN_API_KEY",
            "model_studio_cn",
            keys_of("model-studio-cn"),
            "",
            "The same, China (Beijing)",
            secret=True,
        ),
        Variable(
            "CODING_PLAN_API_KEY",
            "coding_plan",
            keys_of("coding-plan"),
            "",
            "Keys of a Coding Plan, international",
            secret=True,
        ),
        Variable(
            "CODING_PLAN_CN_API_KEY", "coding_plan_cn", keys_of("coding-plan-cn"), "", "The same, China", secret=True
        ),
        Variable(
            "TOKEN_PLAN_API_KEY",
            "token_plan",
            keys_of("token-plan"),
            "",
            "Keys of a Token Plan, international (Singapore)",
            secret=True,
        ),
        Variable(
            "TOKEN_PLAN_CN_API_KEY",
            "token_plan_cn",
            keys_of("token-plan-cn"),
            "",
            "The same, China (Beijing)",
            secret=True,
        ),
        Variable(
            "MODELSCOPE_API_KEY",
            "modelscope",
            keys_of("modelscope"),
            "",
            "Tokens of ModelScope's inference API",
            secret=True,
        ),
        Variable("OPENROUTER_API_KEY", "openrouter", keys_of("openrouter"), "", "API keys of OpenRouter", secret=True),
        Variable("VLLM_BASE_URL", "vllm", address_of("vllm"), "", "A vLLM server, such as http://127.0.0.1:8000"),
        Variable(
            "OLLAMA_BASE_URL", "ollama", address_of("ollama"), "", "An Ollama server, such as http://127.0.0.1:11434"
        ),
        Variable(
            "LLAMA_CPP_BASE_URL",
            "llama_cpp",
            address_of("llama-cpp"),
            "",
            "A llama.cpp server, such as http://127.0.0.1:8080",
        ),
        Variable(
            "OPENAI_COMPATIBLE_BASE_URL",
            "openai_compatible",
            ANY_SERVER,
            "",
            "Any other server: its base URL, mostly ending in /v1, and behind a | its API keys",
            secret=True,
        ),
        Variable(
            "LOCAL_MODEL_PATH",
            "local_model",
            GGUF,
            "",
            "A model that 'qwen-proxy serve' runs itself, as backend 'local'; needs pip install 'qwen-proxy[local]'",
        ),
        Variable(
            "LOCAL_CONTEXT_TOKENS",
            "local_context_tokens",
            whole(256, 10_000_000),
            "8192",
            "Prompt and reply together, for each of the two requests that the local model answers at a time",
        ),
        Variable(
            "LOCAL_THREADS",
            "local_threads",
            whole(0, 1024),
            "0",
            "Threads of the local model; 0 is one per processor",
        ),
    ),
)

_STORAGE: Final = Group(
    "Data",
    (
        Variable(
            "DATA_DIR",
            "data_dir",
            FOLDER,
            "./data",
            "Folder for what is kept: the generated keys, and the database of DATA_SAVE_MODE=file",
        ),
        Variable(
            "DATA_SAVE_MODE",
            "save_mode",
            choice(choices.SaveMode),
            "file",
            "Where accounts, keys, settings and usage are kept: file is an SQLite file in DATA_DIR, redis a server that"
            " several machines share; with none all is gone at the end",
        ),
        Variable("REDIS_URL", "redis_url", REDIS, "", "Redis or Valkey for DATA_SAVE_MODE=redis", secret=True),
        Variable(
            "REDIS_PREFIX",
            "redis_prefix",
            PREFIX,
            "qwen-proxy",
            "Begins the name of every key in Redis, so that several installations may share a server",
        ),
        Variable(
            "SECRET_KEY",
            "secret_key",
            SECRET,
            "",
            "Secret that passwords and tokens are encrypted under, the same for all who share the data; unset: one is"
            " generated into DATA_DIR/secret.key",
            secret=True,
        ),
        Variable(
            "CACHE_MODE",
            "cache_mode",
            choice(choices.CacheMode),
            "default",
            "Cache of uploaded pictures; without effect now",
        ),
        Variable(
            "AUDIT_DAYS",
            "audit_days",
            whole(1, 36500),
            "365",
            "How long the audit log and the history of settings are kept",
            is_live=True,
        ),
        Variable(
            "STORED_RESPONSES_DAYS",
            "stored_responses_days",
            whole(1, 3650),
            "30",
            "How long stored responses of /v1/responses are kept",
            is_live=True,
        ),
        Variable(
            "USAGE_HOURLY_DAYS",
            "usage_hourly_days",
            whole(1, 36500),
            "35",
            "How long usage is kept by the hour",
            is_live=True,
        ),
        Variable(
            "USAGE_DAILY_DAYS",
            "usage_daily_days",
            whole(1, 36500),
            "400",
            "How long usage is kept by the day",
            is_live=True,
        ),
        Variable("NODE_ENV", "node_env", WORD, "production", "Accepted from the original; without effect"),
    ),
)

_LOGGING: Final = Group(
    "Logging",
    (
        Variable(
            "LOG_LEVEL", "log_level", choice(choices.LogLevel), "INFO", "Least level that is logged", is_live=True
        ),
        Variable(
            "LOG_FORMAT",
            "log_format",
            choice(choices.LogFormat),
            "auto",
            "Form of the lines on stderr; auto: text on a terminal, else JSON",
        ),
        Variable("ENABLE_FILE_LOG", "file_log", BOOLEAN, "false", "Log into files too"),
        Variable("LOG_DIR", "log_dir", FOLDER, "./logs", "Folder of the log files"),
        Variable(
            "MAX_LOG_FILE_SIZE", "max_log_file_bytes", MEGABYTES, "10", "Megabytes after which a log file turns over"
        ),
        Variable(
            "MAX_LOG_FILES", "max_log_files", whole(1, 1000), "5", "Log files kept per process, the current one too"
        ),
    ),
)

GROUPS: Final = (_SERVICE, _ACCOUNTS, _KEYS, _WORKERS, _CHAT, _MODELS, _UPSTREAM, _BACKENDS, _STORAGE, _LOGGING)
VARIABLES: Final = tuple(variable for group in GROUPS for variable in group.variables)
BY_NAME: Final = {variable.name: variable for variable in VARIABLES}
NAMES: Final = frozenset(BY_NAME)
LIVE: Final = tuple(variable for variable in VARIABLES if variable.is_live)
