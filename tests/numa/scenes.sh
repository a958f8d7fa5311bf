# SPDX-License-Identifier: MIT
#
# The table of machines that the tests are run on. Read by the host (boot.sh, all.sh) and by the
# machine itself (init), whose shell is busybox's: POSIX words only.
#
# `scene NAME` sets, for one machine:
#
#   nodes    a word a node, memory:processors. `-` has none of them. A machine's node numbers are
#            Linux's: in the order of the firmware's table, which lists processors first, so nodes
#            without processors are named last here. `x` is a processor that Linux is told to leave
#            out; a node with nothing else does not come up, and leaves a hole in the numbering.
#   dist     from,to,distance words, where they are not 10 and 20
#   smp      how processors are arranged; a socket each unless said
#   pools    2 MiB pages, node:count words;  giants  1 GiB pages
#   words    further words for the kernel's command line
#   expect   what the programs are told that the machine is (VM_EXPECT, see tests/vm_kit.h)
#   runs     a line a run: GROUP PROGRAM SKIPS [CASE...]. Where there are words after SKIPS, only
#            the cases that have one of them in their names. SKIPS is how many cases must skip, no
#            more, no fewer. GROUP is the control group that the program is put into, `-` for none:
#            hugetlb=32M and rsvd=32M (version 2), v1=32M (version 1), cpuset=NODES; it is appended
#            to VM_EXPECT.
#   more     runs that a quick run leaves out (VM_QUICK=1)
#   mutants  a line a wrong library: NAME PROGRAM CASE TEXT. The case must fail there, and its line
#            must have the text.
#   limit    seconds it may take
#
# In a quick run quick_scenes are booted, and vm_stress works 5 s instead of 20.
# shellcheck shell=sh disable=SC2034
quick_scenes='two memoryless_cpuless short'
full_scenes='two four asymmetric memoryless_cpuless holes giants one_giant short
    cgroup cgroup_v1 cpuset eight'

scene() {
    dist='' smp='' pools='' giants='' words='' more='' mutants='' limit=150
    case $1 in
    two)
        nodes='512M:2 512M:2' pools='0:64 1:64'
        expect='nodes=0-1'
        runs='
- vm_region 7
- vm_plan 1
- vm_place 0
- vm_home 3
- tool.sh 0
- vm_stress 0
- test_topology 0
- test_outbox 0'
        mutants='
wrong vm_region every_2m_page_is_on_its_node found on another node
unseen vm_region every_2m_page_is_on_its_node of the segment on node 0 lies on node 1
unseen vm_region every_4k_page_is_on_its_node of the segment on node 0 lies on node 1
unseen vm_place workers_get_every_kind_of_object_on_their_own_node not on node 0'
        ;;
    four)
        nodes='384M:1 384M:1 384M:1 384M:1' pools='0:32 1:32 2:32 3:32'
        expect='nodes=0-3'
        runs='
- vm_region 7
- vm_plan 1
- vm_place 0
- vm_home 3
- tool.sh 0
- vm_stress 0'
        ;;
    asymmetric)
        nodes='384M:1 384M:1 384M:1 384M:1' pools='0:16 1:16 2:16 3:16'
        dist='0,1,20 0,2,30 0,3,40 1,0,25 1,2,20 1,3,30 2,0,35 2,1,25 2,3,20 3,0,12 3,1,35 3,2,25'
        expect='nodes=0-3 distances=asym'
        runs='
- vm_region 7
- vm_place 0 promised by_distance workers_get by_name
- vm_home 3'
        ;;
    memoryless_cpuless)
        nodes='384M:2 -:1 384M:1 384M:-' pools='0:32 2:32 3:32'
        expect='nodes=0-3 memoryless=1 cpuless=3'
        runs='
- vm_region 5
- vm_plan 1
- vm_home 0
- tool.sh 0'
        more='
- vm_place 0 promised every_page workers_get by_name by_distance'
        mutants='
unbound vm_region every_4k_page_is_on_its_node of the segment on node 2 lies on node 0'
        ;;
    holes)
        nodes='384M:2 -:x 384M:2 384M:-' pools='0:16 2:16 3:16'
        expect='nodes=0,2-3 cpuless=3'
        runs='
- vm_region 6
- vm_plan 1
- vm_place 0 promised every_page workers_get by_name by_distance
- vm_home 2
- tool.sh 0'
        ;;
    giants)
        nodes='3G:2 2G:2' pools='0:64 1:64' giants='0:1 1:1' words=nokaslr
        expect='nodes=0-1 giants=0-1'
        runs='
- vm_region 6
- vm_plan 1'
        ;;
    one_giant)
        # For the cases that a machine which has worked for days has to skip.
        nodes='5G:2' pools='0:64' giants='0:1' words=nokaslr
        expect='nodes=0 giants=0'
        runs='
- test_plan 0 1_gib
- test_backing 0 1_gib
- test_hugetlbfs 0 1_gib'
        ;;
    short)
        nodes='384M:2 384M:2' pools='0:64 1:8'
        expect='nodes=0-1 short=1'
        runs='
- vm_region 6
- vm_plan 1
- tool.sh 0'
        ;;
    cgroup)
        nodes='384M:2 384M:2' pools='0:64 1:64'
        expect='nodes=0-1'
        runs='
hugetlb=32M vm_region 6
rsvd=32M vm_region 6
hugetlb=32M vm_plan 1
rsvd=32M vm_plan 1'
        ;;
    cgroup_v1)
        nodes='384M:2 384M:2' pools='0:64 1:64'
        expect='nodes=0-1'
        runs='
v1=32M vm_region 6
v1=32M vm_plan 1'
        ;;
    cpuset)
        nodes='384M:1 384M:1 384M:1 384M:1' pools='0:32 1:32 2:32 3:32'
        expect='nodes=0-3'
        runs='
cpuset=1,3 vm_region 6
cpuset=2 vm_region 8
cpuset=1,3 vm_plan 1
cpuset=1,3 vm_place 0 promised every_page workers_get by_name
cpuset=1,3 vm_home 3
cpuset=2 vm_plan 1'
        ;;
    eight)
        nodes='256M:1 256M:1 256M:1 256M:1 256M:1 256M:1 256M:1 256M:1'
        pools='0:16 1:16 2:16 3:16 4:16 5:16 6:16 7:16'
        expect='nodes=0-7' limit=240
        runs='
- vm_region 7
- vm_place 0 promised tables workers_are full_node
- vm_home 3
- tool.sh 0'
        ;;
    *)
        echo "no scene $1; there are: $full_scenes" >&2
        return 1
        ;;
    esac
    [ "${VM_QUICK:-0}" = 1 ] || runs="$runs$more"
}
