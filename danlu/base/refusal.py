"""What pydantic found wrong, told as danlu's one sentence: where, what is wanted, what was got, the fix.

Of several mistakes the most telling one is named: a word that is not a setting comes first, because a misspelt
name also makes a needed one missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from danlu.base.errors import UserError, fold, near_names, shown, slips
from danlu.base.settings import Chosen, Settings, meanings

Sections = Mapping[str, type[Settings]]
KIND_FAULTS = {"unknown_kind", "code_not_allowed", "code_not_found"}


@dataclass(frozen=True)
class Place:
    """Where a fault sits: the dotted key, the settings class that owns it, and the field name there."""

    path: tuple[str, ...]
    owner: type[Settings]
    field: str

    @property
    def dotted(self) -> str:
        """data.tokenizer.vocab_size, data.clean[2].threshold."""
        return ".".join(shorten(p) for p in self.path).replace(".[", "[")

    @property
    def owner_name(self) -> str:
        """The owner as the user knows it: its kind, its section, or the recipe."""
        if "kind" in self.owner.model_fields:
            return str(self.owner.model_fields["kind"].default)
        return f"[{'.'.join(self.path[:-1])}]" if len(self.path) > 1 else "a recipe"


def refusal(
    error: ValidationError,
    cls: type[Settings],
    values: Mapping[str, Any],
    source: str | Callable[[str], str],
    synonyms: Mapping[str, str] | None = None,
) -> UserError:
    """The one sentence for a failed validation of `values` as `cls`.

    `source` names the file or the call (or, given the dotted key, says where that key came from); `synonyms` are
    names people bring from other tools.
    """
    groups: dict[tuple[str, ...], list[Any]] = {}
    places: dict[tuple[str, ...], Place] = {}
    for fault in error.errors(include_url=False):
        place = locate(cls, values, fault["loc"])
        groups.setdefault(place.path, []).append(fault)
        places[place.path] = place
    sections = sections_of(cls, values)

    def rank(path: tuple[str, ...]) -> tuple[int, int]:
        kind = groups[path][0]["type"]
        if kind == "extra_forbidden":
            return 0, min(slips(fold(places[path].field), fold(k)) for k in places[path].owner.model_fields)
        return (1 if kind in KIND_FAULTS else 3 if kind == "missing" else 2), 0

    worst = min(groups, key=rank)
    place, faults = places[worst], groups[worst]
    origin = source if isinstance(source, str) else source(place.dotted)
    where = f"{origin}: {place.dotted}" if place.path else origin
    kind = faults[0]["type"]
    if kind == "extra_forbidden":
        fix = unknown_name_fix(place, sections, synonyms or {})
        got = faults[0]["input"]
        return UserError(where, f"is not a setting of {place.owner_name}", got=plain(got), fix=fix)
    if kind in KIND_FAULTS:
        return kind_refusal(where, place, faults[0])
    if kind == "missing":
        return missing_refusal(where, place)
    return value_refusal(where, place, faults)


def locate(cls: type[Settings], values: Any, loc: Sequence[int | str]) -> Place:
    """Follow pydantic's location down to a field; names of union branches at its end are left off."""
    path: list[str] = []
    owner, field = cls, ""
    inside: type[Settings] | None = cls
    for part in loc:
        if isinstance(part, int):
            path.append(f"[{part}]")
            values = values[part] if isinstance(values, Sequence) and part < len(values) else None
            inside = section_class(owner, field, values)
        elif inside is not None:
            owner, field = inside, part
            path.append(part)
            values = values.get(part) if isinstance(values, Mapping) else getattr(values, part, None)
            inside = section_class(owner, part, values)
    return Place(tuple(path), owner, field)


def section_class(owner: type[Settings], name: str, value: Any) -> type[Settings] | None:
    """The settings class inside a field, given its value, or None for a plain one (or a list not yet entered)."""
    field = owner.model_fields.get(name)
    if field is None or isinstance(value, list | tuple):
        return None
    for found in (*field.metadata, *parts_of(field.annotation)):
        if isinstance(found, Chosen):
            kind = value.get("kind", found.default) if isinstance(value, Mapping) else found.default
            try:
                return found.class_of(kind)
            except ValueError:
                return None
        if isinstance(found, type) and issubclass(found, Settings):
            return found
    return None


def parts_of(annotation: Any) -> list[Any]:
    """An annotation taken apart: classes and annotation objects, outermost first."""
    inner = [*getattr(annotation, "__metadata__", ()), *get_args(annotation)]
    return [annotation, *(leaf for part in inner for leaf in ([part] if isinstance(part, Chosen) else parts_of(part)))]


def sections_of(cls: type[Settings], values: Mapping[str, Any]) -> Sections:
    """The sections of a recipe, each with the class its `kind` picks; empty for a class without sections."""
    found = {name: section_class(cls, name, values.get(name)) for name in cls.model_fields}
    return {name: section for name, section in found.items() if section is not None}


def unknown_name_fix(place: Place, sections: Sections, synonyms: Mapping[str, str]) -> str:
    """Rename it, move it to another section, or choose from the list."""
    name, known = place.field, list(place.owner.model_fields)
    dotted = synonyms.get(name.lower().replace("-", "_"))
    if dotted:
        return f"write {dotted}"
    renames = near_names(name, known)
    homes = [s for s, cls in sections.items() if name in cls.model_fields and cls is not place.owner]
    if homes and (len(place.path) > 1 or not renames):
        move = "move it to " + " or ".join(f"[{home}]" for home in homes)
        return move if not renames else f"{move}, or rename it to {' or '.join(renames)}"
    if renames:
        return f"rename it to {' or '.join(renames)}"
    elsewhere = {field: s for s, cls in sections.items() if cls is not place.owner for field in cls.model_fields}
    far = [f"{elsewhere[field]}.{field}" for field in near_names(name, elsewhere)]
    return f"write {' or '.join(far)}" if far else f"remove it, or use one of {', '.join(known)}"


def kind_refusal(where: str, place: Place, fault: Any) -> UserError:
    """A `kind` that names nothing, or names code that was not allowed."""
    context, kind = fault["ctx"], fault["ctx"].get("kind")
    where = f"{where}.kind"
    if fault["type"] == "code_not_allowed":
        fix = f"add --allow-code {context['package']} if you trust it"
        return UserError(where, "names code outside danlu, which a recipe alone may not run", got=kind, fix=fix)
    if fault["type"] == "code_not_found":
        return UserError(where, f"cannot be loaded ({context['why']})", got=kind, fix='write "package.module:Class"')
    known = context["known"].split(", ")
    near = near_names(str(kind), known)
    fix = "write " + " or ".join(f'"{n}"' for n in near) if near else f"choose one of {context['known']}"
    return UserError(where, f"must be one of {context['known']}", got=plain(kind), fix=fix)


def missing_refusal(where: str, place: Place) -> UserError:
    """A needed setting that is not there."""
    field = place.owner.model_fields[place.field]
    section = ".".join(place.path[:-1])
    inside = section_class(place.owner, place.field, {})
    if inside is not None:
        keys = [n for n, f in inside.model_fields.items() if f.is_required()]
        return UserError(
            f"{where}", "is a section that every recipe needs", fix=f"add [{place.dotted}] with {', '.join(keys)}"
        )
    meaning = meanings(place.owner)[place.field].split("\n")[0].rstrip(".").replace('"', "'")
    example = next(iter(field.examples or ()), "...")
    to = f" to [{section}]" if section else ""
    return UserError(
        where, f"is needed{f' ({meaning})' if meaning else ''}", fix=f'add {place.field} = "{example}"{to}'
    )


def value_refusal(where: str, place: Place, faults: Sequence[Any]) -> UserError:
    """A value of the wrong type, range or word."""
    got = plain(faults[0]["input"])
    raised = next((f["ctx"]["error"] for f in faults if f["type"] == "value_error"), None)
    if isinstance(raised, UserError):
        where = f"{where}{'.' if place.path else ': '}{raised.where}" if raised.where else where
        return UserError(where, raised.wanted, got=raised.got, fix=raised.fix)
    schema = field_schema(place)
    words = words_of(schema)
    wanted = f"must be {phrase(schema)}" if schema else "is not right"
    if raised is not None:
        spoken = [json.dumps(w) for w in words if f'"{w}"' not in str(raised)]
        wanted = str(raised) + (f", or {' or '.join(spoken)}" if spoken else "")
        if not place.path or not schema or section_class(place.owner, place.field, {}) is not None:
            return UserError(where, wanted)
    near = near_names(got, words) if isinstance(got, str) else []
    if near:
        return UserError(where, wanted, got=got, fix="write " + " or ".join(json.dumps(n) for n in near))
    return UserError(where, wanted, got=got, fix=default_fix(place, schema))


def default_fix(place: Place, schema: Mapping[str, Any]) -> str:
    """What to write when nothing is near: the default, else an example."""
    default = schema.get("default", ...)
    if default is not ... and not isinstance(default, dict | list):
        return f"leave it out for the default, {json.dumps(default)}"
    example = next(iter(schema.get("examples", ())), None)
    if example is not None:
        return f"write {json.dumps(example)}"
    return f"write a section, [{place.dotted}]" if "section" in phrase(schema) else f"change {place.field}"


def field_schema(place: Place) -> dict[str, Any]:
    """The JSON schema of the field (of its items, when the place is inside a list)."""
    schema = place.owner.model_json_schema()["properties"].get(place.field, {}) if place.field else {}
    for part in place.path[::-1]:
        if not part.startswith("["):
            break
        schema = schema.get("items", schema.get("prefixItems", [{}])[0])
    return dict(schema)


def words_of(schema: Mapping[str, Any]) -> list[str]:
    """The words a field knows: of all branches of a union."""
    own = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    inner = [word for branch in schema.get("anyOf", ()) for word in words_of(branch)]
    return [w for w in own + inner if isinstance(w, str)]


def phrase(schema: Mapping[str, Any]) -> str:
    """A field's type and range in words: a whole number of at least 1 or "auto"."""
    if "anyOf" in schema:
        return " or ".join(phrase(branch) for branch in schema["anyOf"] if branch.get("type") != "null")
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(word) for word in schema["enum"])
    if "examples" in schema:
        return "something like " + " or ".join(json.dumps(e) for e in schema["examples"])
    names = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
    limits = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    if schema.get("type") == "array":
        inner: Mapping[str, Any] = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return f"a list, each of it {phrase(inner)}" if inner else "a list"
    told = {key: word for key, word in limits.items() if abs(schema.get(key, 2**40)) < 2**40}
    bounds = " and ".join(f"{word} {schema[key]:,}" for key, word in told.items())
    return names.get(str(schema.get("type")), "a section") + (f" {bounds}" if bounds else "")


def plain(value: Any) -> Any:
    """The value to quote: text as it is, a switch as TOML writes it, settings by class."""
    if isinstance(value, bool):
        return ShownAs(str(value).lower())
    if isinstance(value, Mapping):
        return ShownAs(
            "a section" if not value else "{ " + ", ".join(f"{k} = {shown(v, 20)}" for k, v in value.items()) + " }"
        )
    if isinstance(value, Settings):
        return ShownAs(type(value).__name__)
    return value


class ShownAs:
    """A value that is quoted as this text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def shorten(part: str) -> str:
    """A key of any length, short enough for one line."""
    return part if len(part) <= 60 else part[:57] + "..."
