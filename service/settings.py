"""Settings: one field is one environment variable (`PRECISION_PORT`) and one flag (`--port`)."""

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.card import Preparation
from models.flags import LIKE, like
from models.preprocess import SIDE
from models.topology import RESIZES, SIDES
from models.variants import DEFAULT_GPU_BACKEND, DEFAULT_VARIANTS, GPU_BACKENDS, VARIANTS
from service.http.keys import keys_in

PREFIX = "PRECISION_"
HOST_NAME = re.compile(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*", re.ASCII)
ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:\d+)?", re.ASCII)
Share = Annotated[float, Field(ge=0, le=1)]
Channels = Annotated[tuple[Share, Share, Share], NoDecode]
ALL = "all"
"""The name that stands for all other variants, in a setting that can differ between variants."""
PER_VARIANT = "; or per variant:"


class Settings(BaseSettings):
    """The settings of the service."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    variants: Annotated[tuple[str, ...], NoDecode] = Field(
        DEFAULT_VARIANTS, description=f"variants to serve, comma-separated, from: {', '.join(VARIANTS)}"
    )
    checkpoint: Path | None = Field(
        None, description="weights to serve instead of the bundled ones (a file, or a prepared folder)"
    )
    input_size: int | None = Field(
        None, ge=SIDES[0], le=SIDES[-1], description="height and width of the checkpoint's images (its card's, else 32)"
    )
    mean: Channels | None = Field(
        None, description="mean per channel, 0 to 1, of the checkpoint's normalisation (its card's, else CIFAR-10's)"
    )
    std: Channels | None = Field(None, description="standard deviation per channel, as --mean")
    resize: int | None = Field(
        None,
        ge=RESIZES[0],
        le=RESIZES[-1],
        description="length to resize an image's shorter side to before its centre is cut out, pixels (its card's)",
    )
    like: str | None = Field(
        None,
        pattern=f"^({'|'.join(LIKE)})$",
        description="stands for the values of --input-size, --resize, --mean and --std that are not given: imagenet",
    )
    classes: Path | None = Field(None, description="file with the names of the classes, one a line (its card's)")
    max_pool: bool | None = Field(
        None, description="a max-pool follows the stem (its card's, else as is usual: after 7x7 yes, after 3x3 no)"
    )
    calibration_images: Path | None = Field(
        None,
        description="folder of pictures, also in subfolders, to calibrate INT8 on at load (the stored calibration)",
    )
    fp16_on_cpu: bool = Field(False, description="run fp16 on the CPU, for functional tests: slow, never a default")
    gpu_backend: str = Field(
        DEFAULT_GPU_BACKEND,
        pattern=f"^({'|'.join((DEFAULT_GPU_BACKEND, *GPU_BACKENDS))})$",
        description=f"how a GPU runs the floating-point variants: {', '.join((DEFAULT_GPU_BACKEND, *GPU_BACKENDS))}",
    )
    workers: int = Field(1, ge=1, le=256, description="worker processes of each variant on the CPU")
    threads: int = Field(
        0, ge=0, description="threads of each CPU worker; 0 divides the available cores among a variant's workers"
    )
    max_batch_size: Annotated[dict[str, Annotated[int, Field(ge=1, le=1024)]], NoDecode] = Field(
        {ALL: 32}, description=f"largest batch, images{PER_VARIANT} int8=16,fp32=8"
    )
    batch_timeout: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], NoDecode] = Field(
        {ALL: 0.0},
        description=f"time that a batch that is not full waits for more images, seconds{PER_VARIANT} int8=0.002,fp32=0",
    )
    max_queue_wait: float = Field(
        0.8, gt=0, description="longest expected wait in a variant's queue, seconds; beyond it, requests get 503"
    )
    max_waiting_images: int = Field(
        1024,
        ge=1,
        description="images that may wait per variant, in small and in large requests each; then requests get 503",
    )
    request_timeout: float = Field(
        30.0, gt=0, description="deadline of a request, seconds after its headers; then it gets 504"
    )
    hang_timeout: float = Field(60.0, gt=0, description="time for a batch, seconds; a worker that needs more is killed")
    load_timeout: float = Field(300.0, gt=0, description="time to load, seconds; a worker that needs more is killed")
    drain_timeout: int = Field(10, ge=0, description="time that requests in flight have at shutdown, seconds")
    shutdown_delay: float = Field(
        0.0, ge=0, description="time after SIGTERM in which readiness is 503 and requests are served, seconds"
    )
    keep_alive: int = Field(
        5, ge=1, description="time that an idle connection stays open, seconds; more than the balancer's idle time"
    )
    max_connections: int = Field(
        1000, ge=1, description="open connections; further ones wait in the kernel until one closes"
    )
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="largest request body, bytes")
    max_held_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        description="memory for all bodies until they are decoded, bytes; beyond it, requests get 503",
    )
    max_images: int = Field(256, ge=1, description="most images in one request")
    max_pixels: int = Field(16_777_216, ge=1024, description="most pixels (width x height) of one encoded image")
    max_parts: int = Field(300, ge=1, description="most parts of a multipart body")
    receive_timeout: float = Field(
        30.0, gt=0, description="time for a request to arrive (else 408), and again for its answer to be read, seconds"
    )
    decode_timeout: float = Field(10.0, gt=0, description="time to decode the images of a request, seconds")
    api_keys: SecretStr | None = Field(
        None, description="API keys that clients must send, comma-separated; other users of the machine can see a flag"
    )
    api_key_file: Path | None = Field(None, description="file with API keys, one a line")
    no_page: bool = Field(False, description="serve no page at /; it leads to /docs instead")
    open_metrics: bool = Field(False, description="allow /metrics without a key")
    allow_anonymous: bool = Field(
        False, validate_default=True, description="listen on addresses other than loopback without any key"
    )
    allowed_hosts: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None, description="names of the service, and of sites whose pages may post, comma-separated; * for all"
    )
    allowed_origins: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description="sites whose pages may call the service (CORS), comma-separated: https://a.example.org; * for all",
    )
    root_path: str | None = Field(
        None, pattern=r"^(/[\w.~-]+)*$", description="path under which a proxy shows the service, as /precision"
    )
    ssl_certfile: Path | None = Field(None, description="certificate chain (PEM); the service then speaks HTTPS")
    ssl_keyfile: Path | None = Field(None, validate_default=True, description="private key (PEM) of the certificate")
    shadow_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the other variants' requests that a background fp32 worker runs too, for metrics only",
    )
    traces: bool = Field(False, description="trace each prediction to the OpenTelemetry collector of OTEL_* variables")
    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="debug, info, warning or error; debug and info log a line per prediction",
    )

    @property
    def side(self) -> int:
        """Height and width, in pixels, of the images that the workers take."""
        return self.input_size or SIDE

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image as the workers take it."""
        return 3, self.side, self.side

    @property
    def preparation(self) -> Preparation:
        """How the checkpoint's images are prepared."""
        said = Preparation(
            self.input_size, self.mean, self.std, self.calibration_images, self.classes, self.max_pool, self.resize
        )
        return like(self.like, said)

    @property
    def is_on_loopback(self) -> bool:
        """True if the service listens on loopback addresses only."""
        return _is_loopback(self.host)

    @field_validator("variants", "mean", "std", "allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("max_batch_size", "batch_timeout", mode="before")
    @classmethod
    def _pairs(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict):
            return value
        parts = [part.partition("=") for part in str(value).split(",")]
        given = {name.strip() if equals else ALL: number if equals else name for name, equals, number in parts}
        return given if ALL in given else cls.model_fields[info.field_name or ""].default | given

    @field_validator("max_batch_size", "batch_timeout")
    @classmethod
    def _per_variant(cls, numbers: dict[str, Any]) -> dict[str, Any]:
        if not set(numbers) <= {*VARIANTS, ALL}:
            raise ValueError(f"expected a number, or NAME=NUMBER,... with names from: {', '.join((*VARIANTS, ALL))}")
        return numbers

    @field_validator("variants")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in VARIANTS]
        if unknown or not names or len(set(names)) != len(names):
            raise ValueError(f"expected distinct names from: {', '.join(VARIANTS)}")
        return names

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if not all(map(HOST_NAME.fullmatch, names or ())):
            raise ValueError("expected names without scheme and port, such as a.example.org or *.example.org, or *")
        return names

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if not all(map(ORIGIN.fullmatch, origins or ())):
            raise ValueError("expected origins without path, such as https://a.example.org or http://b:8080, or *")
        return origins

    @field_validator("api_keys", "api_key_file")
    @classmethod
    def _holds_keys(cls, value: SecretStr | Path | None) -> SecretStr | Path | None:
        try:
            if value is not None:
                keys_in(value.read_text() if isinstance(value, Path) else _lines(value))
        except OSError as error:
            raise ValueError(f"expected a file that can be read: {error.strerror}") from None
        return value

    @field_validator("allow_anonymous")
    @classmethod
    def _guarded(cls, allowed: bool, info: ValidationInfo) -> bool:
        has_key = info.data.get("api_keys") or info.data.get("api_key_file")
        if not (allowed or has_key or _is_loopback(info.data.get("host", ""))):
            raise ValueError(
                f"{info.data.get('host')} can be reached from other machines: give --api-key-file or "
                f"{PREFIX}API_KEYS, or this flag if everybody may use the service"
            )
        return allowed

    @field_validator("ssl_keyfile")
    @classmethod
    def _pair(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("ssl_certfile")
        if (key is None) != (certificate is None):
            raise ValueError("expected both or none of --ssl-certfile and --ssl-keyfile")
        if certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
            except (OSError, ValueError) as error:
                raise ValueError(f"expected the unencrypted key of {certificate}: {error}") from None
        return key

    def keys(self) -> tuple[str, ...]:
        """Return every API key, of `api_keys` and of the file."""
        given = _lines(self.api_keys) + (self.api_key_file.read_text() if self.api_key_file else "")
        return keys_in(given) if given else ()


def _lines(keys: SecretStr | None) -> str:
    return keys.get_secret_value().replace(",", "\n") + "\n" if keys else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Number = TypeVar("Number", int, float)


def for_variant(numbers: dict[str, Number], variant: str) -> Number:
    """Return a variant's value of a setting that can differ between variants."""
    return numbers.get(variant, numbers[ALL])
