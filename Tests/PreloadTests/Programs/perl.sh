# perl: hashes, sorting, regular expressions, fork, string growth.
perl -e '
  use strict; use warnings;
  my %count; my $seed = 42;
  for (1..200000) { $seed = ($seed * 1103515245 + 12345) % 2147483648; $count{"key" . $seed % 5000} .= "x" x ($seed % 7); }
  my @keys = sort { length $count{$b} <=> length $count{$a} or $a cmp $b } keys %count;
  print scalar(@keys), " $keys[0] ", length $count{$keys[0]}, "\n";
  my $text = join " ", map { $_ * $_ } 1..50000;
  my $found = () = $text =~ /\b\d*7\d*\b/g; print "$found\n";
  for my $n (1..20) { my $pid = fork; if (!$pid) { my @a = map { "a" x $_ } 1..500; exit(@a == 500 ? 0 : 1); } waitpid $pid, 0; die if $?; }
  my $big = ""; $big .= "line $_\n" for 1..300000; print length $big, "\n";
'
