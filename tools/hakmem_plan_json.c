/* SPDX-License-Identifier: MIT */
/*
 * The plan as JSON: every figure of struct hak_plan under its own name; null where there is no
 * limit or nobody can tell (UINT64_MAX), page sizes by their names in HAKMEM_PAGES, commands as
 * lists of lines.
 */
#define _GNU_SOURCE
#include "region/os.h"
#include "tools/hakmem.h"
#include "tools/hakmem_plan.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An object that is being filled; whole: nothing has failed so far. Adding to a NULL object or of a
 * NULL item fails and does no harm, so that only the end asks. */
struct filling {
    bool whole;
};

static void note(struct filling *filling, const void *added)
{
    filling->whole = filling->whole && added != NULL;
}

static void add_number(struct filling *filling, cJSON *object, const char *name, uint64_t value)
{
    note(filling, value == UINT64_MAX ? cJSON_AddNullToObject(object, name)
                                      : cJSON_AddNumberToObject(object, name, (double)value));
}

static void add_code(struct filling *filling, cJSON *object, int code)
{
    note(filling, cJSON_AddNumberToObject(object, "code", code));
    note(filling, code == 0 ? cJSON_AddNullToObject(object, "error")
                            : cJSON_AddStringToObject(object, "error", strerrorname_np(-code)));
}

static void add_object(struct filling *filling, cJSON *array, cJSON *object)
{
    note(filling, object);
    if (!cJSON_AddItemToArray(array, object)) {
        cJSON_Delete(object);
        filling->whole = false;
    }
}

/* What may quote the environment, or was cut in the middle of a character. */
static cJSON *text_item(const char *text)
{
    cJSON *item = cJSON_CreateString(text);
    if (item != NULL)
        tool_utf8(item->valuestring);
    return item;
}

static void add_text(struct filling *filling, cJSON *object, const char *name, const char *text)
{
    cJSON *item = text_item(text);
    if (!cJSON_AddItemToObject(object, name, item)) {
        cJSON_Delete(item);
        filling->whole = false;
    }
}

static cJSON *node_object(struct filling *filling, const struct hak_plan_node *node)
{
    cJSON *object = cJSON_CreateObject();
    add_number(filling, object, "node", (uint64_t)node->node);
    add_number(filling, object, "wanted_pages", node->wanted_pages);
    add_number(filling, object, "pool_pages", node->pool_pages);
    add_number(filling, object, "free_pages", node->free_pages);
    add_number(filling, object, "missing_pages", node->missing_pages);
    add_number(filling, object, "memory_bytes", node->memory_bytes);
    return object;
}

static cJSON *kind_object(struct filling *filling, const struct hak_plan_kind *kind)
{
    cJSON *object = cJSON_CreateObject();
    note(filling, cJSON_AddStringToObject(object, "pages", os_pages_name(kind->pages)));
    add_number(filling, object, "page_bytes", kind->page_bytes);
    add_number(filling, object, "size_bytes", kind->size_bytes);
    add_code(filling, object, kind->code);
    add_number(filling, object, "promised_pages", kind->promised_pages);
    add_number(filling, object, "cgroup_bytes", kind->cgroup_bytes);
    cJSON *nodes = cJSON_AddArrayToObject(object, "nodes");
    for (unsigned n = 0; n < kind->node_count; n++)
        add_object(filling, nodes, node_object(filling, &kind->nodes[n]));
    note(filling, nodes);
    return object;
}

static void add_lines(struct filling *filling, cJSON *object, const char *name, const char *lines)
{
    char line[1024];
    cJSON *array = cJSON_AddArrayToObject(object, name);
    note(filling, array);
    while (*lines != '\0') {
        size_t length = strcspn(lines, "\n");
        snprintf(line, sizeof line, "%.*s", (int)length, lines);
        add_object(filling, array, text_item(line));
        lines += length + (lines[length] == '\n');
    }
}

bool plan_print_json(const struct hak_plan *plan)
{
    struct filling filling = {.whole = true};
    cJSON *object = cJSON_CreateObject();
    add_code(&filling, object, plan->code);
    note(&filling, plan->chosen < plan->kind_count
                       ? cJSON_AddStringToObject(object, "chosen",
                                                 os_pages_name(plan->kinds[plan->chosen].pages))
                       : cJSON_AddNullToObject(object, "chosen"));
    add_text(&filling, object, "message", plan->message);
    add_number(&filling, object, "memlock_bytes", plan->memlock_bytes);
    cJSON *kinds = cJSON_AddArrayToObject(object, "kinds");
    note(&filling, kinds);
    for (unsigned i = 0; i < plan->kind_count; i++)
        add_object(&filling, kinds, kind_object(&filling, &plan->kinds[i]));
    add_lines(&filling, object, "now", plan->now);
    add_lines(&filling, object, "hugeadm", plan->hugeadm);
    if (plan->boot[0] != '\0')
        add_text(&filling, object, "boot", plan->boot);
    else
        note(&filling, cJSON_AddNullToObject(object, "boot"));
    char *text = filling.whole ? cJSON_Print(object) : NULL;
    cJSON_Delete(object);
    if (text == NULL)
        return false;
    puts(text);
    cJSON_free(text);
    return true;
}
